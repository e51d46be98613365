/** The one-time news that an executor is gone: kept for whoever asks later, told to each listener once. */
import type { IntarsiaError } from './errors.js';

export class Loss {
  #reason: IntarsiaError | undefined;
  #listeners: ((reason: IntarsiaError) => void)[] = [];

  /** Why it is gone; undefined while it is not. */
  get reason(): IntarsiaError | undefined {
    return this.#reason;
  }

  /** Tells every listener. Only the first call counts. */
  happen(reason: IntarsiaError): void {
    if (this.#reason !== undefined) return;
    this.#reason = reason;
    const listeners = this.#listeners;
    this.#listeners = [];
    for (const listener of listeners) listener(reason);
  }

  /** Calls the listener when it happens; soon, when it has. */
  listen(listener: (reason: IntarsiaError) => void): void {
    const reason = this.#reason;
    if (reason === undefined) this.#listeners.push(listener);
    else void Promise.resolve().then(() => listener(reason));
  }
}
