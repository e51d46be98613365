/**
 * Who crashed the executor. Pure book-keeping over artefact digests.
 *
 * When one artefact alone was in flight, the crash is its own. When several were, none is blamed: all are on probation and
 * run alone, one at a time, until each has run once without a crash. So the culprit is found and the others lose a little time.
 */
import type { ArtifactDigest } from '#core/ids.js';

export interface QuarantineRule {
  /** Crashes within the interval that put an artefact into quarantine. 1 to 1,000, default 3. Lower: bystanders suffer less from a bad model; a passing fault is punished harder. */
  readonly crashesMax: number;
  /** Milliseconds, default 600,000. */
  readonly intervalMs: number;
}

export const defaultQuarantineRule: QuarantineRule = { crashesMax: 3, intervalMs: 600_000 };

export class CrashAttribution {
  readonly #rule: QuarantineRule;
  readonly #crashes = new Map<ArtifactDigest, number[]>();
  readonly #probation = new Set<ArtifactDigest>();
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

  /** Crashes the artefact alone was guilty of within the interval. */
  crashCount(digest: ArtifactDigest, nowMs: number): number {
    return (this.#crashes.get(digest) ?? []).filter((momentMs) => nowMs - momentMs < this.#rule.intervalMs).length;
  }

  /** The executor crashed while these were loading or running. Returns the artefact that goes into quarantine, if any. */
  crashed(inFlight: ReadonlySet<ArtifactDigest>, nowMs: number): ArtifactDigest | undefined {
    for (const digest of inFlight) this.#probation.add(digest);
    const [culprit] = inFlight;
    if (culprit === undefined || inFlight.size > 1) return undefined;
    const recent = (this.#crashes.get(culprit) ?? []).filter((momentMs) => nowMs - momentMs < this.#rule.intervalMs);
    recent.push(nowMs);
    this.#crashes.set(culprit, recent);
    if (recent.length < this.#rule.crashesMax) return undefined;
    this.#probation.delete(culprit);
    this.#crashes.delete(culprit);
    this.#quarantined.add(culprit);
    return culprit;
  }

  /** A run of the artefact ended without a crash. Its former crashes still count within the interval. */
  survived(digest: ArtifactDigest): void {
    if (this.#probation.size > 0) this.#probation.delete(digest);
  }

  /** An operator loads the artefact again: it gets another chance. */
  pardon(digest: ArtifactDigest): void {
    this.#quarantined.delete(digest);
    this.#crashes.delete(digest);
    this.#probation.delete(digest);
  }
}
