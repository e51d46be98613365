/**
 * A file in memory that a host and its executor process both hold open, for payloads that are too large for a socket to
 * carry cheaply: one system call writes them, one reads them, and nobody is woken up in between. Only Linux has it; where
 * it is missing or full, payloads take the socket.
 *
 * The file is cut into slots of two regions, one for a run's inputs and one for its outputs. The host gives a slot to a
 * run and takes it back when the run is settled, so that nobody writes where somebody may still read. It has no name any
 * more once it is open: it goes when both processes are gone.
 */
import { closeSync, openSync, readSync, unlinkSync, writevSync } from 'node:fs';
import { randomBytes } from 'node:crypto';

/** Shorter payloads are cheaper in the frame. */
const payloadBytesMin = 64 * 1024;
/** Longer ones would hold up the host's event loop: writing 4 MiB takes about half a millisecond. */
const payloadBytesMax = 4 * 1024 * 1024;
/** Runs that may use it at once; bounds it to 8 × 2 × 4 MiB, of which only what is used takes memory. */
const slotCount = 8;

export type Direction = 'inputs' | 'outputs';

export class SharedArea {
  readonly fd: number;
  readonly #free: number[];

  /** Makes an area; undefined where the system has none. */
  static create(): SharedArea | undefined {
    if (process.platform !== 'linux') return undefined;
    const path = `/dev/shm/intarsia-${process.pid}-${randomBytes(8).toString('hex')}`;
    try {
      const fd = openSync(path, 'wx+', 0o600);
      unlinkSync(path);
      return new SharedArea(fd);
    } catch {
      // No such folder, or not ours to write: the sockets carry everything.
      return undefined;
    }
  }

  /** Uses an area that another process has made. */
  constructor(fd: number) {
    this.fd = fd;
    this.#free = Array.from({ length: slotCount }, (_, index) => index + 1);
  }

  /** A slot, 1 and up; 0 when all are taken. */
  take(): number {
    return this.#free.pop() ?? 0;
  }

  giveBack(slot: number): void {
    if (slot > 0) this.#free.push(slot);
  }

  /** Writes a payload into a slot. False when it is too short, too long, or does not fit on the system: send it otherwise. */
  write(slot: number, direction: Direction, ranges: readonly Uint8Array[]): boolean {
    let bytes = 0;
    for (const range of ranges) bytes += range.byteLength;
    if (slot === 0 || bytes < payloadBytesMin || bytes > payloadBytesMax) return false;
    try {
      return writevSync(this.fd, ranges, position(slot, direction)) === bytes;
    } catch {
      // The system's memory for such files is used up.
      return false;
    }
  }

  /** Fills `target` from a slot. @throws Error when the area holds less: the other end broke the protocol. */
  read(slot: number, direction: Direction, target: Uint8Array): void {
    if (slot < 1 || slot > slotCount || target.byteLength > payloadBytesMax) {
      throw new Error(`shared area has no ${target.byteLength} bytes in slot ${slot}`);
    }
    const bytes = readSync(this.fd, target, 0, target.byteLength, position(slot, direction));
    if (bytes !== target.byteLength) {
      throw new Error(`shared area ends after ${bytes} of ${target.byteLength} bytes in slot ${slot}`);
    }
  }

  close(): void {
    closeSync(this.fd);
  }
}

function position(slot: number, direction: Direction): number {
  return ((slot - 1) * 2 + (direction === 'inputs' ? 0 : 1)) * payloadBytesMax;
}
