/**
 * Which policy decides in a grid, and how it came to: the pointer that stands in the store under `policies/current`, and the
 * steps that change it. A step makes the next pointer of the one before; whoever takes it writes it by compare-and-swap.
 *
 * A policy is named by a reference: `own` (what each host was started with), a rule such as `cheapest-feasible:0.6`, or a
 * version such as `quick-1@0123456789ab`: its name and the beginning of its artefact's digest. A version may hold a second
 * file, which forms batches; whatever decides about one decides about both.
 */
import { intarsiaError } from '../errors.js';
import type { GateFinding } from './promotion-gates.js';

/** `shadow`: it is asked, and the base decides. `share`: it decides in some time slices, the base in the others. */
export type PromotionMode = 'rule' | 'shadow' | 'share' | 'all';

export const promotionModes: readonly PromotionMode[] = ['rule', 'shadow', 'share', 'all'];

export interface PolicyPointer {
  readonly format: 1;
  /** Grows by one with each step. */
  readonly number: number;
  readonly mode: PromotionMode;
  /** In `shadow` and `share` the one on trial, else the one that decides. */
  readonly policy: string;
  /** Decides where the one on trial does not; the same as `policy` in `rule` and `all`. */
  readonly base: string;
  /** What decided before, newest first; at most two. They stay loaded. */
  readonly previous: readonly string[];
  /** Share of the time slices, percent; 0 but in `share`. */
  readonly percent: number;
  readonly sliceSeconds: number;
  /** Of the hash that chooses slices, 0 to 2^32 - 1. */
  readonly seed: number;
  /** Share of late answers under the base while the policy was on trial; negative when it is not known. */
  readonly baseLate: number;
  /** What the gates said before this step. */
  readonly gates: readonly GateFinding[];
  /** Why gates were passed over; empty when none was. */
  readonly forced: string;
  readonly reason: string;
  /** Host that wrote it, and when, ms since 1970. */
  readonly host: string;
  readonly wallMs: number;
}

export const ownPolicy = 'own';
export const sliceSecondsMin = 10;
export const sliceSecondsMax = 3_600;
const previousMax = 2;

/** What holds as long as nobody has promoted anything. */
export const noPointer: PolicyPointer = {
  ...{ format: 1, number: 0, mode: 'rule', policy: ownPolicy, base: ownPolicy, previous: [], percent: 0 },
  ...{ sliceSeconds: 60, seed: 1, baseLate: -1, gates: [], forced: '', reason: '', host: '', wallMs: 0 },
};

export type PromotionStep =
  | { readonly kind: 'shadow'; readonly policy: string }
  | {
      readonly kind: 'share';
      readonly policy: string;
      readonly percent: number;
      readonly sliceSeconds?: number;
      readonly seed?: number;
    }
  /** A version for all requests; or a rule, in its place. */
  | { readonly kind: 'all'; readonly policy: string }
  | { readonly kind: 'rollback' };

/** Who takes a step, and what is written down of it. */
export type StepNote = Pick<PolicyPointer, 'gates' | 'forced' | 'reason' | 'host' | 'wallMs' | 'baseLate'>;

export function isVersion(reference: string): boolean {
  return reference.includes('@');
}

export function versionId(name: string, sha256: string): string {
  return `${name}@${sha256.slice(0, 12)}`;
}

/** Versions that a host keeps loaded: the one that decides, the one on trial, and the two before. */
export function loadedVersions({ policy, base, previous }: PolicyPointer): ReadonlySet<string> {
  return new Set([policy, base, ...previous].filter(isVersion));
}

/**
 * @throws INVALID_ARGUMENT (a share, a length or a seed out of bounds; a rule on trial), FAILED_PRECONDITION (nothing would
 * change, or there is nothing to go back to).
 */
export function nextPointer(before: PolicyPointer, step: PromotionStep, note: StepNote): PolicyPointer {
  const made = { ...note, format: 1, number: before.number + 1 } as const;
  const kept = { sliceSeconds: before.sliceSeconds, seed: before.seed, previous: before.previous, percent: 0 };
  switch (step.kind) {
    case 'shadow':
      checkTrial(before, step.policy);
      return { ...made, ...kept, mode: 'shadow', policy: step.policy, base: before.base };
    case 'share': {
      checkTrial(before, step.policy);
      const { policy, percent, sliceSeconds = before.sliceSeconds, seed = before.seed } = step;
      within('the share', percent, 1, 99, 'percent');
      within('the length of a slice', sliceSeconds, sliceSecondsMin, sliceSecondsMax, 'seconds');
      within('the seed', seed, 0, 2 ** 32 - 1, '');
      return { ...made, ...kept, mode: 'share', policy, base: before.base, percent, sliceSeconds, seed };
    }
    case 'all': {
      const { policy } = step;
      if (policy === before.base && !isTrial(before))
        throw nothingChanges(`${policy} decides about all requests already`);
      const previous = [before.base, ...before.previous].filter((each) => each !== policy);
      return { ...made, ...kept, ...decides(policy), previous: [...new Set(previous)].slice(0, previousMax) };
    }
    case 'rollback': {
      if (isTrial(before)) return { ...made, ...kept, ...decides(before.base) };
      const [last, ...previous] = before.previous;
      if (last === undefined && before.policy === ownPolicy) {
        throw nothingChanges('every host decides by the policy it was started with: there is nothing to go back to');
      }
      return { ...made, ...kept, ...decides(last ?? ownPolicy), previous };
    }
  }
}

export function isTrial({ mode }: PolicyPointer): boolean {
  return mode === 'shadow' || mode === 'share';
}

/** How far it is, in a line. */
export function pointerText(
  pointer: Pick<PolicyPointer, 'policy' | 'base' | 'percent' | 'sliceSeconds'> & { readonly mode: string },
): string {
  const { mode, policy, base, percent, sliceSeconds } = pointer;
  switch (mode) {
    case 'rule':
      return policy === ownPolicy
        ? 'every host decides by the policy it was started with'
        : `rule ${policy} decides about all requests`;
    case 'all':
      return `${policy} decides about all requests`;
    case 'shadow':
      return `${policy} is asked beside ${base}, which decides`;
    default:
      return `${policy} decides in ${percent} % of the slices of ${sliceSeconds} s, ${base} in the others`;
  }
}

/** The step after the one that was taken, where the operator names none: shadow, 1, 10, 50 and 100 percent. */
export function stepAfter(pointer: PolicyPointer, policy: string): PromotionStep {
  if (!isVersion(policy)) return { kind: 'all', policy };
  if (!isTrial(pointer) || pointer.policy !== policy) return { kind: 'shadow', policy };
  const percent = ladder.find((each) => each > pointer.percent);
  return percent === undefined ? { kind: 'all', policy } : { kind: 'share', policy, percent };
}

const ladder = [1, 10, 50];

function decides(policy: string): Pick<PolicyPointer, 'mode' | 'policy' | 'base'> {
  return { mode: isVersion(policy) ? 'all' : 'rule', policy, base: policy };
}

function checkTrial(before: PolicyPointer, policy: string): void {
  if (!isVersion(policy)) {
    throw intarsiaError('INVALID_ARGUMENT', `only a learned policy is put on trial; ${policy} is a rule`, { policy });
  }
  if (before.base === policy) throw nothingChanges(`${policy} decides already: it cannot be compared with itself`);
}

function within(what: string, value: number, least: number, most: number, unit: string): void {
  if (Number.isInteger(value) && value >= least && value <= most) return;
  const bounds = `a whole number from ${least} to ${most}${unit === '' ? '' : ` ${unit}`}`;
  throw intarsiaError('INVALID_ARGUMENT', `${what} must be ${bounds}; it is ${value}`, {});
}

function nothingChanges(reason: string): Error {
  return intarsiaError('FAILED_PRECONDITION', reason, {});
}
