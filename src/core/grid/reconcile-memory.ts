/**
 * What a leader remembers between two reconciliations: since when something is as it is, on its own clock. None of it is
 * in the store: a new leader starts counting again, which only makes it slower to move things. How long a rollout waits is
 * the exception, and stands in its record.
 */

export interface ProgressMark {
  /** What the wait is about: another text begins another wait. */
  readonly mark: string;
  readonly sinceMs: number;
  /** Waited before, by the record. */
  readonly beforeMs: number;
}

export interface ReconcileMemory {
  /** Hosts that are suspected, by host and generation. */
  readonly suspectedSinceMs: ReadonlyMap<string, number>;
  /** Copies that have failed or are on a degraded device, by deployment and number. */
  readonly failedSinceMs: ReadonlyMap<string, number>;
  /** Until when a device is not given an edition again, by both. */
  readonly avoidUntilMs: ReadonlyMap<string, number>;
  /** When a copy of a deployment was last moved for a better spread. */
  readonly movedMs: ReadonlyMap<string, number>;
  readonly progress: ReadonlyMap<string, ProgressMark>;
  /** Why copies of a deployment found no place at the last look. */
  readonly refusals: ReadonlyMap<string, string>;
}

export const emptyMemory: ReconcileMemory = {
  suspectedSinceMs: new Map(),
  failedSinceMs: new Map(),
  avoidUntilMs: new Map(),
  movedMs: new Map(),
  progress: new Map(),
  refusals: new Map(),
};

export interface ReconcileOptions {
  /** Milliseconds a host may be suspected before its copies are placed elsewhere, default 30,000. */
  readonly suspectGraceMs: number;
  /** Milliseconds a copy may have failed, or its device be degraded, before another device is tried, default 20,000. */
  readonly failureGraceMs: number;
  /** Milliseconds a device on which an edition failed is not chosen for it again, default 300,000. */
  readonly avoidMs: number;
  /** Least milliseconds between two moves of one deployment for a better spread, default 60,000. */
  readonly moveMsMin: number;
}

export const defaultReconcileOptions: ReconcileOptions = {
  suspectGraceMs: 30_000,
  failureGraceMs: 20_000,
  avoidMs: 300_000,
  moveMsMin: 60_000,
};

/** The memory of the next look, written while this one goes on. Entries that nobody renews are forgotten. */
export class MemoryDraft {
  readonly nowMs: number;
  readonly #before: ReconcileMemory;
  readonly #suspected = new Map<string, number>();
  readonly #failed = new Map<string, number>();
  readonly #avoid: Map<string, number>;
  readonly #moved = new Map<string, number>();
  readonly #progress = new Map<string, ProgressMark>();
  readonly #refusals = new Map<string, string>();
  #reviewMs = Infinity;

  constructor(before: ReconcileMemory, nowMs: number) {
    this.#before = before;
    this.nowMs = nowMs;
    this.#avoid = new Map([...before.avoidUntilMs].filter(([, untilMs]) => untilMs > nowMs));
    for (const untilMs of this.#avoid.values()) this.review(untilMs);
  }

  /** Time alone changes something at that moment. */
  review(momentMs: number): void {
    if (momentMs > this.nowMs) this.#reviewMs = Math.min(this.#reviewMs, momentMs);
  }

  get reviewMs(): number {
    return this.#reviewMs;
  }

  /** Whether the host has been suspected for as long as is tolerated. */
  isLost(host: string, graceMs: number): boolean {
    return this.#isOver(this.#before.suspectedSinceMs, this.#suspected, host, graceMs);
  }

  /** Whether the copy has failed for as long as is tolerated. */
  isTainted(copy: string, graceMs: number): boolean {
    return this.#isOver(this.#before.failedSinceMs, this.#failed, copy, graceMs);
  }

  avoid(place: string, untilMs: number): void {
    this.#avoid.set(place, Math.max(untilMs, this.#avoid.get(place) ?? 0));
    this.review(untilMs);
  }

  isAvoided(place: string): boolean {
    return this.#avoid.has(place);
  }

  get hasAvoided(): boolean {
    return this.#avoid.size > 0;
  }

  /** Whether a deployment may be moved now; where not, a look is due when it may. */
  mayMove(deployment: string, everyMs: number): boolean {
    const movedMs = this.#before.movedMs.get(deployment);
    if (movedMs === undefined) return true;
    this.review(movedMs + everyMs);
    return this.nowMs >= movedMs + everyMs;
  }

  keepMoved(deployment: string): void {
    const movedMs = this.#before.movedMs.get(deployment);
    if (movedMs !== undefined && !this.#moved.has(deployment)) this.#moved.set(deployment, movedMs);
  }

  moved(deployment: string): void {
    this.#moved.set(deployment, this.nowMs);
  }

  /** Milliseconds that a rollout has waited for what the mark says. */
  waitedMs(deployment: string, mark: string, beforeMs: number): number {
    const before = this.#before.progress.get(deployment);
    const entry = before?.mark === mark ? before : { mark, sinceMs: this.nowMs, beforeMs };
    this.#progress.set(deployment, entry);
    return entry.beforeMs + this.nowMs - entry.sinceMs;
  }

  refusalOf(deployment: string): string {
    return this.#before.refusals.get(deployment) ?? '';
  }

  refused(deployment: string, text: string): void {
    if (text !== '') this.#refusals.set(deployment, text);
  }

  finish(): ReconcileMemory {
    return {
      suspectedSinceMs: this.#suspected,
      failedSinceMs: this.#failed,
      avoidUntilMs: this.#avoid,
      movedMs: this.#moved,
      progress: this.#progress,
      refusals: this.#refusals,
    };
  }

  #isOver(before: ReadonlyMap<string, number>, now: Map<string, number>, key: string, graceMs: number): boolean {
    const sinceMs = now.get(key) ?? before.get(key) ?? this.nowMs;
    now.set(key, sinceMs);
    this.review(sinceMs + graceMs);
    return this.nowMs >= sinceMs + graceMs;
  }
}
