/**
 * The choices of devices that a search goes through, as a graph without circles.
 *
 * A row is a stage on so many equal devices, begun from a state; a state says which devices are used up. By counts, a state
 * is how many of each type are used: every choice and order of devices is in it. In order, a state is how far a given
 * order of devices is used up: far fewer states, and only plans that keep to the order. Where stages are limited their
 * number is part of the state.
 */
import { groupByType, type PlannerDevice, type PlannerProblem } from './plan-problem.js';

export interface SpaceRow {
  /** The devices of the stage; which of a type they are is settled when a plan is traced (by counts). */
  readonly devices: readonly PlannerDevice[];
  /** State it begins from. */
  readonly source: number;
  /** In order: the devices that stages behind it may have. */
  readonly behind?: readonly PlannerDevice[];
}

export interface SearchSpace {
  /** Sources before what is made of them. */
  readonly rows: readonly SpaceRow[];
  /** By state: the rows that end in it (in order: at or before it). */
  readonly states: readonly (readonly number[])[];
  /** Whether the devices of rows stand for their types only. */
  readonly isByCounts: boolean;
}

/** Every choice and order of devices; undefined when that takes more rows than `rowsMax`. */
export function countSpace(problem: PlannerProblem, rowsMax: number): SearchSpace | undefined {
  const types = groupByType(problem.devices);
  const { devices, stagesMax = devices.length, replicates = false } = problem;
  const isLimited = stagesMax < devices.length;
  // The number of stages is one more coordinate, where it is limited and not simply the number of devices.
  const limits = types.map(({ length }) => length);
  if (isLimited) limits.push(stagesMax);
  const sizes = limits.map((limit) => limit + 1);
  const total = sizes.reduce((product, size) => product * size, 1);
  if (total > rowsMax) return undefined;
  const strides = sizes.map((_, at) => sizes.slice(at + 1).reduce((product, size) => product * size, 1));
  const rows: SpaceRow[] = [];
  const states: number[][] = [];
  for (let state = 0; state < total; state += 1) {
    const mine: number[] = [];
    states.push(mine);
    const countAt = (at: number): number => Math.floor(state / (strides[at] ?? 1)) % (sizes[at] ?? 1);
    if (isLimited && countAt(types.length) === 0) continue;
    for (const [type, group] of types.entries()) {
      const replicasMax = replicates ? countAt(type) : Math.min(1, countAt(type));
      for (let replicas = 1; replicas <= replicasMax; replicas += 1) {
        const source = state - replicas * (strides[type] ?? 1) - (isLimited ? 1 : 0);
        mine.push(rows.push({ devices: group.slice(0, replicas), source }) - 1);
        if (rows.length > rowsMax) return undefined;
      }
    }
  }
  return { rows, states, isByCounts: true };
}

/** Only plans that use the devices in this order; some may be left out. */
export function orderSpace({ devices, stagesMax, replicates = false }: PlannerProblem): SearchSpace {
  const limit = stagesMax !== undefined && stagesMax < devices.length ? stagesMax : undefined;
  const levels = limit ?? 1;
  const rows: SpaceRow[] = [];
  // State (level, used): level counts stages where they are limited, else there is one.
  const states: number[][] = Array.from({ length: (levels + 1) * (devices.length + 1) }, () => []);
  const stateOf = (level: number, used: number): number => level * (devices.length + 1) + used;
  for (let level = 1; level <= levels; level += 1) {
    const sourceLevel = limit === undefined ? level : level - 1;
    for (let used = 0; used <= devices.length; used += 1) {
      const mine = states[stateOf(level, used)] as number[];
      if (used > 0) mine.push(...(states[stateOf(level, used - 1)] ?? []));
      const behind = devices.slice(used);
      for (let replicas = 1; replicas <= (replicates ? used : Math.min(1, used)); replicas += 1) {
        const stage = devices.slice(used - replicas, used);
        if (stage[0]?.type !== stage.at(-1)?.type) break;
        const source = stateOf(sourceLevel, used - replicas);
        mine.push(rows.push({ devices: stage, source, behind }) - 1);
      }
    }
  }
  return { rows, states, isByCounts: false };
}
