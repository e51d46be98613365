/**
 * Metadata of models, remembered for a minute, so that requests made of plain numbers learn their datatypes once.
 * At most 256 models; the oldest is dropped. A failed look-up is not remembered.
 */
import type { Clock } from '#ports/clock.js';
import type { CallOptions } from './caller.js';
import type { ModelMetadata } from './server-answers.js';

const modelsMax = 256;
const keptMs = 60_000;

interface Entry {
  readonly model: string;
  readonly metadata: Promise<ModelMetadata>;
  readonly untilMs: number;
}

export class MetadataCache {
  readonly #clock: Clock;
  readonly #fetch: (model: string, version: string, options: CallOptions) => Promise<ModelMetadata>;
  readonly #entries = new Map<string, Entry>();

  constructor(clock: Clock, fetch: (model: string, version: string, options: CallOptions) => Promise<ModelMetadata>) {
    this.#clock = clock;
    this.#fetch = fetch;
  }

  get(model: string, version: string, options: CallOptions): Promise<ModelMetadata> {
    const key = `${model}/${version}`;
    const nowMs = this.#clock.nowMs();
    const known = this.#entries.get(key);
    if (known !== undefined && known.untilMs > nowMs) return known.metadata;
    this.#entries.delete(key);
    const [oldest] = this.#entries.keys();
    if (oldest !== undefined && this.#entries.size >= modelsMax) this.#entries.delete(oldest);
    const { timeoutMs, deadline } = options;
    // Shared by callers: one caller's cancellation must not fail the others, so only its time limits go along.
    const metadata = this.#fetch(model, version, {
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
      ...(deadline === undefined ? {} : { deadline }),
    });
    const entry: Entry = { model, metadata, untilMs: nowMs + keptMs };
    this.#entries.set(key, entry);
    metadata.catch(() => {
      if (this.#entries.get(key) === entry) this.#entries.delete(key);
    });
    return metadata;
  }

  forget(model: string): void {
    for (const [key, entry] of this.#entries) if (entry.model === model) this.#entries.delete(key);
  }
}
