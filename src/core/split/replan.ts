/**
 * When a split that serves is planned again, and how it is cut then.
 *
 * A stage drifts when its time is out of the band around what was expected, for long enough; it has come back when it is
 * inside a narrower band. After a plan nothing is planned for a while. So neither a short pause nor a time at the edge of the
 * band moves shards to and fro.
 */
import { planInOrder, type PlannerDevice } from './planner.js';

export interface DriftOptions {
  /** Out of the band: observed by expected above this, or below its inverse. Above 1. */
  readonly band: number;
  /** Back in it: within this. From 1 to `band`. */
  readonly calmBand: number;
  /** Milliseconds out of the band before it counts. */
  readonly holdMs: number;
  /** Milliseconds after a plan in which none is made. */
  readonly coolDownMs: number;
}

export const defaultDrift: DriftOptions = { band: 1.6, calmBand: 1.25, holdMs: 30_000, coolDownMs: 300_000 };

/** What is remembered of one deployment. */
export interface DriftState {
  /** Since when a stage is out of the band, by stage. */
  readonly sinceMs: ReadonlyMap<number, number>;
  /** Nothing is planned before. */
  readonly quietUntilMs: number;
}

export const noDrift: DriftState = { sinceMs: new Map(), quietUntilMs: -Infinity };

/** @param ratios Observed by expected of each stage; undefined where nothing is known. */
export function driftStep(
  state: DriftState,
  ratios: readonly (number | undefined)[],
  nowMs: number,
  { band, calmBand, holdMs, coolDownMs }: DriftOptions,
): { readonly state: DriftState; readonly drifting: readonly number[] } {
  const sinceMs = new Map<number, number>();
  for (const [stage, ratio] of ratios.entries()) {
    if (ratio === undefined) continue;
    const off = Math.max(ratio, 1 / ratio);
    const since = state.sinceMs.get(stage);
    if (off > band || (since !== undefined && off > calmBand)) sinceMs.set(stage, since ?? nowMs);
  }
  const drifting = [...sinceMs].flatMap(([stage, since]) => (nowMs - since >= holdMs ? [stage] : []));
  if (drifting.length === 0 || nowMs < state.quietUntilMs) {
    return { state: { sinceMs, quietUntilMs: state.quietUntilMs }, drifting: [] };
  }
  return { state: { sinceMs: new Map(), quietUntilMs: nowMs + coolDownMs }, drifting };
}

/** A stage as it serves. */
export interface ServingStage {
  /** `host/device`. */
  readonly place: string;
  /** In the engine, for an item. */
  readonly ms: number;
}

export interface RebalanceInput {
  /** Estimated work of each node. */
  readonly work: readonly number[];
  /** Legal positions, ascending. */
  readonly legal: readonly number[];
  /** Where it is cut now. */
  readonly cuts: readonly number[];
  /** Milliseconds that each stage takes where it is. */
  readonly stageMs: readonly number[];
}

export interface Rebalanced {
  readonly cuts: readonly number[];
  /** Stages of before whose devices keep one, in order; the others are too slow for any. */
  readonly kept: readonly number[];
  /** Of the slowest stage, before and as planned. */
  readonly beforeMs: number;
  readonly afterMs: number;
}

/** The slowest stage must get faster by this share, or nothing is moved. */
const worthwhile = 0.1;

/**
 * The cut with the fastest slowest stage, on the devices of now in their order, each at the speed it shows. Exact over the
 * legal positions. Undefined when that is no better by a tenth, or leaves one stage.
 */
export function rebalanced({ work, legal, cuts, stageMs }: RebalanceInput): Rebalanced | undefined {
  const sums = [0];
  for (const one of work) sums.push((sums.at(-1) ?? 0) + one);
  const until = (position: number): number => sums[position] ?? 0;
  const ends = [...cuts, work.length];
  // A stage may have no work that counts: it is as fast as any.
  const pace = stageMs.map((ms, stage) => ms / Math.max(1, until(ends[stage] ?? 0) - until(ends[stage - 1] ?? 0)));
  const bounds = [0, ...legal, work.length];
  const devices = stageMs.map((_, stage): PlannerDevice => {
    return { id: String(stage), type: String(stage), memoryBytes: Infinity, usdPerHour: 0 };
  });
  const { plan } = planInOrder(
    {
      segments: bounds.length - 1,
      devices,
      stageMs: ({ id }, from, to) => (pace[Number(id)] ?? 0) * (until(bounds[to] ?? 0) - until(bounds[from] ?? 0)),
      stageBytes: () => 0,
      transferMs: () => 0,
    },
    'throughput',
  );
  const beforeMs = Math.max(...stageMs);
  if (plan === undefined || plan.stages.length < 2 || plan.value > beforeMs * (1 - worthwhile)) return undefined;
  return {
    cuts: plan.stages.slice(1).map(({ from }) => bounds[from] ?? 0),
    kept: plan.stages.map(({ device }) => Number(device.id)),
    beforeMs,
    afterMs: plan.value,
  };
}
