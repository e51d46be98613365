/** A cancellation that its owner triggers by hand. */
import type { Cancellation } from './actor.js';

export class ManualCancellation implements Cancellation {
  private listeners: Set<() => void> | undefined;
  private isCancelled = false;

  get cancelled(): boolean {
    return this.isCancelled;
  }

  /** Runs every listener once, in the order in which they were added. Calling again does nothing. */
  cancel(): void {
    if (this.isCancelled) return;
    this.isCancelled = true;
    const listeners = this.listeners;
    this.listeners = undefined;
    for (const listener of listeners ?? []) listener();
  }

  /** A listener added after the end runs at once. */
  onCancel(listener: () => void): void {
    if (this.isCancelled) {
      listener();
      return;
    }
    this.listeners ??= new Set();
    this.listeners.add(listener);
  }

  offCancel(listener: () => void): void {
    this.listeners?.delete(listener);
  }
}
