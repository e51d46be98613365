/**
 * What no policy can beat, computed: so that a report says how far a result is from the best there could be.
 *
 * LB1  windowed fluid programme: requests are divisible, every run is as efficient as any batch that is still in time, a
 *      request may be served in any window from its own to that of its target, or be missed at its price.
 * LB4  throughput: the largest rate of the fleet's mix that fluid devices can serve in time.
 * LB5  latency: a request alone on the fastest device of an empty fleet (`References.fastestMs`).
 * LB6  the cheapest static fleet of the same types that could serve a rate.
 *
 * With noise the bounds hold for the mean of service times, not for every run. Losses only make a fleet worse than them.
 */
import { intarsiaError } from '#core/errors.js';
import { ProgramBuilder, type LinearSolution } from '#core/linear-program.js';
import { defaultObjective, type ObjectiveWeights } from '#core/scheduling/objective.js';
import { serviceMs } from '#core/scheduling/service-profile.js';
import { sloClasses } from '#core/scheduling/slo-class.js';
import type { LinearSolver } from '#ports/linear-solver.js';
import type { Arrivals } from './arrivals.js';
import { References } from './fleet-report.js';
import { linkMs, type Fleet, type FleetDevice, type FleetModel } from './fleet.js';

/** Requests of one model, class and size. */
export interface Kind {
  readonly model: number;
  readonly sloClass: number;
  readonly items: number;
  /** Requests of it. */
  readonly count: number;
}

interface DeviceType {
  readonly device: FleetDevice;
  readonly count: number;
}

const hourMs = 3_600_000;
/** Sizes beyond this many of a model are gathered: each group counts as its smallest. */
const sizesMax = 8;

/** Kinds of the arrivals, sizes gathered where there are many. */
export function kindsOf(arrivals: Arrivals): { readonly kinds: readonly Kind[]; readonly of: Uint32Array } {
  const sizes = new Map<number, Set<number>>();
  const { length } = arrivals.atMs;
  for (let index = 0; index < length; index += 1) {
    const model = arrivals.model[index] as number;
    let known = sizes.get(model);
    if (known === undefined) sizes.set(model, (known = new Set<number>()));
    known.add(arrivals.items[index] as number);
  }
  const floors = new Map([...sizes].map(([model, known]) => [model, floorsOf([...known].sort((a, b) => a - b))]));
  const numbers = new Map<string, number>();
  const kinds: { model: number; sloClass: number; items: number; count: number }[] = [];
  const of = new Uint32Array(length);
  for (let index = 0; index < length; index += 1) {
    const model = arrivals.model[index] as number;
    const sloClass = arrivals.sloClass[index] as number;
    const own = arrivals.items[index] as number;
    const items = floors.get(model)?.findLast((floor) => floor <= own) ?? own;
    const key = `${model} ${sloClass} ${items}`;
    let number = numbers.get(key);
    if (number === undefined) {
      number = kinds.push({ model, sloClass, items, count: 0 }) - 1;
      numbers.set(key, number);
    }
    (kinds[number] as { count: number }).count += 1;
    of[index] = number;
  }
  return { kinds, of };
}

function floorsOf(sizes: readonly number[]): readonly number[] {
  if (sizes.length <= sizesMax) return sizes;
  return Array.from({ length: sizesMax }, (_, at) => sizes[Math.floor((at * sizes.length) / sizesMax)] as number);
}

/** Busy ms that a request needs at least on that device and be in time; Infinity where it cannot be. */
export function leastBusyMs(fleet: Fleet, device: FleetDevice, kind: Omit<Kind, 'count'>): number {
  const model = fleet.models[kind.model] as FleetModel;
  const profile = device.service[kind.model];
  if (profile === undefined) return Infinity;
  const fastest = 1 - device.drift;
  const leftMs = (model.sloMs[kind.sloClass] as number) - linkMs(device, model, kind.items);
  let least = Infinity;
  for (let batch = kind.items; batch <= model.itemsMax; batch += 1) {
    const ms = serviceMs(profile, batch) * fastest;
    if (ms <= leftMs) least = Math.min(least, (ms * kind.items) / batch);
  }
  return least;
}

function typesOf(fleet: Fleet): readonly DeviceType[] {
  const types = new Map<string, DeviceType>();
  for (const device of fleet.devices) {
    const count = (types.get(device.type)?.count ?? 0) + 1;
    types.set(device.type, { device, count });
  }
  return [...types.values()];
}

/**
 * LB1: the least mean objective any policy could reach on these arrivals, lateness beyond the miss itself and energy left
 * out. A request of a gathered size counts as the smallest of its group. @param windowMs Δ, above 0, default 1,000.
 */
export function fluidBound(
  fleet: Fleet,
  arrivals: Arrivals,
  solver: LinearSolver,
  options: { readonly windowMs?: number; readonly weights?: ObjectiveWeights } = {},
): number {
  const { windowMs = 1000, weights = defaultObjective } = options;
  const { kinds, of } = kindsOf(arrivals);
  const references = new References(fleet);
  const types = typesOf(fleet);
  const { length } = arrivals.atMs;
  const longest = Math.max(...fleet.models.flatMap(({ sloMs }) => sloMs));
  const windows = Math.floor((arrivals.atMs[length - 1] ?? 0) / windowMs) + Math.ceil(longest / windowMs) + 1;
  const come = kinds.map(() => new Float64Array(windows));
  const dearest = kinds.map(() => 0);
  for (let index = 0; index < length; index += 1) {
    const number = of[index] as number;
    const window = Math.floor((arrivals.atMs[index] as number) / windowMs);
    const counts = come[number] as Float64Array;
    counts[window] = (counts[window] as number) + 1;
    const { usd } = references.of(
      arrivals.model[index] as number,
      arrivals.sloClass[index] as number,
      arrivals.items[index] as number,
    );
    // What the group's own size may be divided by: whichever of its requests has the dearest reference pays the least.
    const scaled = (usd * (kinds[number] as Kind).items) / (arrivals.items[index] as number);
    dearest[number] = Math.max(dearest[number] as number, scaled);
  }
  const program = new ProgramBuilder();
  const capacity = types.map(() => Array.from({ length: windows }, () => [] as [number, number][]));
  for (const [number, kind] of kinds.entries()) {
    const { sloMs } = fleet.models[kind.model] as FleetModel;
    const patience = Math.ceil((sloMs[kind.sloClass] as number) / windowMs);
    const ways = types.map(({ device }) => leastBusyMs(fleet, device, kind));
    // Requests of a kind leave in the order they came in, so that sums say all: none leaves before it came, and each has
    // left by the end of its patience. `left` is how many have left by the end of a window.
    const counts = come[number] as Float64Array;
    let cameSum = 0;
    let left = -1;
    const sums: number[] = [];
    for (let window = 0; window < windows; window += 1) {
      cameSum += counts[window] as number;
      sums.push(cameSum);
      if (cameSum === 0) continue;
      const due = window === windows - 1 ? cameSum : (sums[window - patience] ?? 0);
      const leftNow = program.column(0, { lower: due, upper: cameSum });
      const entries: [number, number][] = [
        [leftNow, -1],
        [program.column(weights.missWeight[kind.sloClass] ?? 0), 1],
      ];
      if (left >= 0) entries.push([left, 1]);
      for (const [type, busyMs] of ways.entries()) {
        if (busyMs === Infinity) continue;
        const column = program.column(costOf(types[type] as DeviceType, busyMs, dearest[number] as number));
        entries.push([column, 1]);
        capacity[type]?.[window]?.push([column, busyMs]);
      }
      program.row(0, 0, entries);
      left = leftNow;
    }
  }
  for (const [type, byWindow] of capacity.entries()) {
    const most = (types[type] as DeviceType).count * windowMs;
    for (const entries of byWindow) if (entries.length > 0) program.row(-Infinity, most, entries);
  }
  return solved(solver.solve(program.finish()), 'windowed fluid bound').cost / length;
}

/** Of a request of a kind there, in units of its reference; nothing where nothing costs anything. */
function costOf({ device }: DeviceType, busyMs: number, referenceUsd: number): number {
  return referenceUsd > 0 ? (busyMs * device.usdPerHour) / hourMs / referenceUsd : 0;
}

/** LB4: requests a second of the mix that fluid devices can serve in time. 0 when some kind can never be in time. */
export function feasibleRate(fleet: Fleet, kinds: readonly Kind[], solver: LinearSolver): number {
  const total = kinds.reduce((sum, { count }) => sum + count, 0);
  const types = typesOf(fleet);
  const program = new ProgramBuilder();
  const rate = program.column(-1);
  const busy = types.map(() => [] as [number, number][]);
  for (const kind of kinds) {
    const ways: [number, number][] = [];
    for (const [type, { device }] of types.entries()) {
      const busyMs = leastBusyMs(fleet, device, kind);
      if (busyMs === Infinity) continue;
      const column = program.column(0);
      ways.push([column, 1]);
      busy[type]?.push([column, busyMs]);
    }
    program.row(0, 0, [...ways, [rate, -kind.count / total]]);
  }
  for (const [type, entries] of busy.entries()) {
    if (entries.length > 0) program.row(-Infinity, (types[type] as DeviceType).count * 1000, entries);
  }
  return -solved(solver.solve(program.finish()), 'throughput bound').cost;
}

export interface StaticFleet {
  /** Devices by type. */
  readonly counts: ReadonlyMap<string, number>;
  readonly usdPerHour: number;
}

/** LB6: the cheapest fleet of whole devices, of the types there are, that could serve so many requests a second. */
export function cheapestFleet(
  fleet: Fleet,
  kinds: readonly Kind[],
  ratePerSecond: number,
  solver: LinearSolver,
): StaticFleet {
  const total = kinds.reduce((sum, { count }) => sum + count, 0);
  const types = typesOf(fleet);
  const program = new ProgramBuilder();
  const counts = types.map(({ device }) => program.column(device.usdPerHour, { whole: true, upper: 1e6 }));
  const busy = counts.map((column): [number, number][] => [[column, -1000]]);
  for (const kind of kinds) {
    const ways: [number, number][] = [];
    for (const [type, { device }] of types.entries()) {
      const busyMs = leastBusyMs(fleet, device, kind);
      if (busyMs === Infinity) continue;
      const column = program.column(0);
      ways.push([column, 1]);
      busy[type]?.push([column, busyMs]);
    }
    const wanted = (ratePerSecond * kind.count) / total;
    program.row(wanted, wanted, ways);
  }
  for (const entries of busy) program.row(-Infinity, 0, entries);
  const { values, cost } = solved(solver.solve(program.finish(), 60_000), 'cheapest static fleet');
  return {
    counts: new Map(
      types.map(({ device }, type) => [device.type, Math.max(0, Math.round(values[counts[type] as number] ?? 0))]),
    ),
    usdPerHour: cost,
  };
}

function solved(solution: LinearSolution, what: string): LinearSolution {
  if (solution.status === 'optimal' || (solution.status === 'limit' && solution.values.length > 0)) return solution;
  throw intarsiaError('FAILED_PRECONDITION', `the ${what} is ${solution.status}: the fleet cannot serve the load`, {
    status: solution.status,
  });
}

/** The fleet's own mix, for loads without a trace: one item a request. */
export function mixOf(fleet: Fleet): readonly Kind[] {
  return fleet.models.flatMap((model, index) =>
    sloClasses.flatMap((_, sloClass) => {
      const count = model.share * (fleet.classShares[sloClass] ?? 0);
      return count > 0 ? [{ model: index, sloClass, items: 1, count }] : [];
    }),
  );
}
