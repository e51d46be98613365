/**
 * Which worker thread of an executor holds which session. A session lives in one thread; its runs follow it there.
 *
 * Threads ("lanes") are numbered and opened only when needed: a host with one model has one. A new session goes to a
 * lane without sessions, else to a new lane while there may be one, else to the lane with the fewest. So loading one
 * model, or running a slow one, holds up another only when there are more sessions than lanes.
 */
export class SessionLanes<Session> {
  readonly #lanesMax: number;
  readonly #counts: number[] = [];
  readonly #laneOf = new Map<Session, number>();

  constructor(lanesMax: number) {
    this.#lanesMax = lanesMax;
  }

  /** The lane of a session; undefined when it is not loaded. */
  laneOf(session: Session): number | undefined {
    return this.#laneOf.get(session);
  }

  /** Chooses the lane of a new session, and counts the session there. One that is placed already stays where it is. */
  place(session: Session): number {
    const present = this.#laneOf.get(session);
    if (present !== undefined) return present;
    let best = 0;
    for (let lane = 1; lane < this.#counts.length; lane += 1) {
      if ((this.#counts[lane] ?? 0) < (this.#counts[best] ?? 0)) best = lane;
    }
    const fewest = this.#counts[best];
    if (fewest === undefined || (fewest > 0 && this.#counts.length < this.#lanesMax)) {
      best = this.#counts.length;
      this.#counts.push(0);
    }
    this.#counts[best] = (this.#counts[best] ?? 0) + 1;
    this.#laneOf.set(session, best);
    return best;
  }

  /** Forgets a session. Unknown ones are ignored. */
  remove(session: Session): void {
    const lane = this.#laneOf.get(session);
    if (lane === undefined) return;
    this.#laneOf.delete(session);
    this.#counts[lane] = (this.#counts[lane] ?? 1) - 1;
  }
}
