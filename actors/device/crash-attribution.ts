/**
 * Who crashed the executor. Pure book-keeping over artefact digests.
 *
 * When one artefact alone was in flight, the crash is its own. When several were, none is blamed: all are on probation and
 * run alone, one at a time, until each has shown that it does not crash: with one run after the first such crash, eight
 * after the second, and so on. So a culprit is found even if it crashes now and then only, and the others lose little.
 */
import type { ArtifactDigest } from '#core/ids.js';

export interface QuarantineRule {
  /** Crashes within the interval that put an artefact into quarantine. 1 to 1,000, default 3. Lower: bystanders suffer less from a bad model; a passing fault is punished harder. */
  readonly crashesMax: number;
  /** Milliseconds, default 600,000. */
  readonly intervalMs: number;
}

export const defaultQuarantineRule: QuarantineRule = { crashesMax: 3, intervalMs: 600_000 };

/** What a suspect did when the executor crashed, and must do again to be cleared. */
export type Activity = 'load' | 'run';

interface Probation {
  readonly activity: Activity;
  timesLeft: number;
}

/** Times a suspect must do without a crash, by how often it was in flight at one: 1, 8, 64, 512. */
const timesBase = 8;
const timesPowerMax = 3;

export class CrashAttribution {
  readonly #rule: QuarantineRule;
  /** Moments of the crashes it alone was guilty of, and of all crashes it was in flight at. */
  readonly #guilty = new Map<ArtifactDigest, number[]>();
  readonly #present = new Map<ArtifactDigest, number[]>();
  readonly #probation = new Map<ArtifactDigest, Probation>();
  readonly #quarantined = new Set<ArtifactDigest>();

  constructor(rule: QuarantineRule) {
    this.#rule = rule;
  }

  /** Whether the artefact must run alone until it has shown that it does not crash. */
  onProbation(digest: ArtifactDigest): boolean {
    return this.#probation.size > 0 && this.#probation.has(digest);
  }

  isQuarantined(digest: ArtifactDigest): boolean {
    return this.#quarantined.has(digest);
  }

  /** The executor crashed while these were loading or running. Returns the artefact that goes into quarantine, if any. */
  crashed(inFlight: ReadonlyMap<ArtifactDigest, Activity>, nowMs: number): ArtifactDigest | undefined {
    for (const [digest, activity] of inFlight) {
      const crashes = this.#add(this.#present, digest, nowMs);
      this.#probation.set(digest, { activity, timesLeft: timesBase ** Math.min(timesPowerMax, crashes - 1) });
    }
    const [culprit] = inFlight.keys();
    if (culprit === undefined || inFlight.size > 1) return undefined;
    if (this.#add(this.#guilty, culprit, nowMs) < this.#rule.crashesMax) return undefined;
    this.pardon(culprit);
    this.#quarantined.add(culprit);
    return culprit;
  }

  /** The artefact loaded or ran without a crash. Its former crashes still count within the interval. */
  survived(digest: ArtifactDigest, activity: Activity): void {
    if (this.#probation.size === 0) return;
    const probation = this.#probation.get(digest);
    if (probation?.activity !== activity) return;
    probation.timesLeft -= 1;
    if (probation.timesLeft <= 0) this.#probation.delete(digest);
  }

  /** An operator loads the artefact again: it gets another chance. */
  pardon(digest: ArtifactDigest): void {
    this.#quarantined.delete(digest);
    this.#guilty.delete(digest);
    this.#present.delete(digest);
    this.#probation.delete(digest);
  }

  /** Adds a moment and forgets those outside of the interval. Returns how many are left. */
  #add(moments: Map<ArtifactDigest, number[]>, digest: ArtifactDigest, nowMs: number): number {
    const recent = (moments.get(digest) ?? []).filter((momentMs) => nowMs - momentMs < this.#rule.intervalMs);
    recent.push(nowMs);
    moments.set(digest, recent);
    return recent.length;
  }
}
