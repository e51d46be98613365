/** The last words of a process, bounded: a crash in native code says why on stderr and nowhere else. */
import type { Readable } from 'node:stream';

const bytesMax = 4096;

export class StderrTail {
  #tail = '';

  constructor(stream: Readable) {
    stream.setEncoding('utf8');
    stream.on('data', (text: string) => {
      this.#tail = (this.#tail + text).slice(-bytesMax);
    });
    stream.on('error', () => {});
  }

  /** One line; empty when nothing was said. */
  get text(): string {
    return this.#tail.replaceAll(/\s+/g, ' ').trim();
  }
}
