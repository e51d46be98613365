/** A plan's choice as the report that people and `intarsia deploy` read: figures with how far to trust each. */
import { resolve, sep } from 'node:path';
import type {
  PlanDeployment,
  PlanDeviceRow,
  PlanNumber,
  PlanReport,
  PlanRequest,
  PlanRow,
  PlanStage,
} from '#cli/plan-report.js';
import type { ArtifactDigest } from '#core/ids.js';
import type { Contention } from '#core/split/contention.js';
import type { CutCandidate } from '#core/split/cut-candidates.js';
import type { Cutter } from '#core/split/cut.js';
import { explainPlan } from '#core/split/plan-explain.js';
import { drawPlan } from '#core/split/plan-picture.js';
import { goalValue, type PlanCandidate, type PlanChoice } from '#core/split/plan-choice.js';
import { sumDeviation, transferMs, type PlanTables, type TableSource } from '#core/split/plan-tables.js';
import { splitIdOf, type SplitSpec } from '#core/split/split-spec.js';
import type { KnownMs } from '#core/split/stage-times.js';
import { formatBytes, formatMs } from '#core/units.js';
import { companionKind } from './company-meter.js';
import type { PlanDevice } from './plan-devices.js';
import type { ShardMeter } from './shard-meter.js';

export interface PlanFindings {
  readonly digest: ArtifactDigest;
  readonly cutter: Cutter;
  readonly devices: readonly PlanDevice[];
  readonly tables: PlanTables;
  readonly choice: PlanChoice;
  readonly meter: ShardMeter;
  readonly link: TableSource['link'];
  readonly contention: Contention;
  /** What was left out, and what else people should know. */
  readonly notes: readonly string[];
  /** What the grid calls the model. */
  readonly models?: readonly { readonly model: string; readonly version: string }[];
  readonly impossible: readonly CutCandidate[];
  readonly legalCuts: number;
  readonly batches: readonly number[];
  readonly measuredSeconds: number;
  /** Bytes of a value for one item. */
  readonly sizes: (name: string) => number;
}

/** Power is a profile's figure of the whole device, not a meter's of this work. */
const powerDeviation = 0.3;

export function reportPlan(request: PlanRequest, findings: PlanFindings): PlanReport {
  const { choice, devices, tables, meter, cutter, impossible } = findings;
  const rowOf = (candidate: PlanCandidate): PlanRow => planRow(candidate, findings);
  const { choice: chosen } = choice;
  const row = chosen === undefined ? undefined : rowOf(chosen);
  const isExact = choice.isExact;
  const best = chosen === undefined ? Infinity : goalValue(chosen, request.goal);
  const deviceRows = devices.map((device): PlanDeviceRow => {
    const { id, name, provider, emulated, memoryBytes, threads, usdPerHour, busyWatts } = device;
    return {
      ...{ id, name, provider, emulated, memoryBytes, threads, usdPerHour, busyWatts },
      measurements: measuredOf(device, meter),
      refusal: refusalOf(device, tables, meter),
      ...(device.place === undefined
        ? {}
        : { host: device.place.host, tier: device.place.tier, zone: device.place.zone }),
    };
  });
  const report: PlanReport = {
    format: 1,
    model: request.model,
    digest: findings.digest,
    nodes: cutter.graph.nodes.length,
    legalCuts: findings.legalCuts,
    impossibleCuts: impossible.length,
    impossibleReason: impossible[0]?.problem ?? '',
    goal: request.goal,
    items: request.items,
    ...(request.sloMs === undefined ? {} : { sloMs: request.sloMs }),
    verdict: row === undefined ? 'no-plan' : 'plan',
    reason: row === undefined ? whyNone(request, findings, deviceRows) : '',
    devices: deviceRows,
    ...(row === undefined ? {} : { choice: row }),
    frontier: choice.frontier.map(rowOf),
    wholes: choice.wholes.map(rowOf),
    lowerBound: choice.lowerBound,
    gap: isExact || best === Infinity ? 0 : best / choice.lowerBound - 1,
    isExact,
    explanation: [],
    notes: notesOf(request, findings),
    measuredSeconds: findings.measuredSeconds,
  };
  const isCut = chosen?.strategy === 'pipeline' && chosen.stages.length > 1;
  const split = isCut && row !== undefined ? splitOf(findings, chosen, row) : undefined;
  const bests = { pipeline: choice.bestOf.pipeline, data: choice.bestOf.data, whole: choice.bestOf.whole };
  const others = Object.fromEntries(
    Object.entries(bests).flatMap(([name, found]) => (found === undefined ? [] : [[name, rowOf(found)]])),
  );
  return {
    ...report,
    explanation: explainPlan(report, others),
    ...(split === undefined ? {} : { split }),
    ...(chosen === undefined ? {} : { deployment: deploymentOf(request, findings, chosen, split) }),
    ...(row === undefined || !request.picture
      ? {}
      : { picture: drawPlan(report, row, cutter, (name) => findings.sizes(name) * row.batch) }),
  };
}

function planRow(candidate: PlanCandidate, { tables, link }: PlanFindings): PlanRow {
  const { strategy, batch, runsPerRequest, shares } = candidate;
  const parts: KnownMs[] = [];
  const hops: KnownMs[] = [];
  // Of the slowest of a stage's devices, by what part of its time answers follow each other.
  const turns: number[] = [];
  const stages = candidate.stages.map((stage, index): PlanStage => {
    const { devices, from, to } = stage;
    const [begin = 0, end = 0] = [tables.bounds[from], tables.bounds[to]];
    const times = devices.map((each) => ({ device: each, known: tables.times(each, batch).known(begin, end) }));
    const { device, known } = times.reduce((slow, one) => (one.known.ms > slow.known.ms ? one : slow));
    parts.push(known);
    turns.push(1 / times.reduce((sum, one) => sum + (one.known.ms === 0 ? 1 : known.ms / one.known.ms), 0));
    const isLast = strategy === 'data' || index === candidate.stages.length - 1;
    const sendsBytes = isLast ? 0 : (tables.source.cutBytes[to - 1] ?? 0) * batch;
    const next = candidate.stages[index + 1]?.devices ?? [device];
    const ways = devices.flatMap((a) => next.map((b) => link(a, b)));
    const way = ways.reduce((slow, one) => (transferMs(one, sendsBytes) > transferMs(slow, sendsBytes) ? one : slow));
    const sendsMs = isLast ? 0 : transferMs(way, sendsBytes);
    if (!isLast) hops.push({ ms: sendsMs, source: way.source, deviation: way.deviation });
    return {
      devices: devices.map(({ id }) => id),
      emulated: (device as PlanDevice).emulated,
      threads: (device as PlanDevice).threads,
      from: begin,
      to: end,
      ms: numberOf(known.ms, known),
      memoryBytes: Math.ceil(tables.shardBytes(from, to, batch)),
      sendsBytes,
      sendsMs: { value: sendsMs, plusMinus: way.deviation, source: way.source },
      share: shares[index] ?? 1,
    };
  });
  const isData = strategy === 'data';
  // Of the parts of a figure: each with its weight in it.
  const times = (weight: (index: number) => number): KnownMs[] =>
    parts.map((part, index) => ({ ...part, ms: part.ms * weight(index) }));
  const shareOf = (index: number): number => shares[index] ?? 1;
  const slowest = (list: readonly KnownMs[]): KnownMs[] => [list.reduce((a, b) => (b.ms > a.ms ? b : a))];
  // Devices that share whole models: rates add up, and one request waits for the slowest that may get it.
  const pace = isData
    ? parts.map((part, index) => ({ ...part, ms: shareOf(index) }))
    : slowest([...times((index) => turns[index] ?? 1), ...hops]);
  const wait = isData ? (runsPerRequest === 1 ? slowest(parts) : pace) : [...parts, ...hops];
  const device = (index: number): PlanDevice => candidate.stages[index]?.device as PlanDevice;
  const busy = times((index) => shareOf(index) * (device(index).usdPerHour || 1e-9));
  const drawn = sumDeviation(times((index) => shareOf(index) * (device(index).busyWatts || 1e-9)));
  return {
    ...{ strategy, batch, runsPerRequest, stages },
    cuts: isData ? [] : stages.slice(1).map(({ from }) => from),
    latencyMs: numberOf(candidate.latencyMs, sumOf(wait)),
    requestsPerSecond: numberOf(candidate.requestsPerSecond, sumOf(pace)),
    usdPer1000: numberOf(candidate.usdPer1000, sumOf(busy)),
    joulesPerRequest: {
      value: candidate.joulesPerRequest,
      plusMinus: Math.hypot(drawn, powerDeviation),
      source: 'estimated',
    },
  };
}

/** Measured when all parts that matter are. */
function sumOf(parts: readonly KnownMs[]): Pick<KnownMs, 'source' | 'deviation'> {
  const total = parts.reduce((sum, { ms }) => sum + ms, 0);
  const isMeasured = parts.every((part) => part.source === 'measured' || part.ms <= total * 0.05);
  return { source: isMeasured ? 'measured' : 'estimated', deviation: sumDeviation(parts) };
}

function numberOf(value: number, { source, deviation }: Pick<KnownMs, 'source' | 'deviation'>): PlanNumber {
  return { value, plusMinus: deviation, source: source === 'measured' ? 'measured' : 'estimated' };
}

function splitOf({ digest }: PlanFindings, chosen: PlanCandidate, { cuts, stages, batch }: PlanRow): SplitSpec {
  const compression = 'none';
  return {
    format: 1,
    id: splitIdOf({ digest, cuts, compression }),
    digest,
    cuts,
    shards: stages.map(({ memoryBytes, devices, ms }, index) => {
      const own = (chosen.stages[index]?.devices ?? []) as readonly PlanDevice[];
      // Unlike devices have no time in common to be expected of them.
      const isAlike = new Set(own.map(({ kind }) => kind)).size === 1;
      return {
        memoryBytes,
        ...(ms.value > 0 && isAlike ? { plannedMs: ms.value / batch } : {}),
        constraints: constraintsOf(own),
        // Further devices of a stage hold the same shard.
        standby: devices.length - 1,
      };
    }),
    compression,
  };
}

/** What a deployment does for this choice; it goes through the gate like any other. */
function deploymentOf(
  { model: path }: PlanRequest,
  { models = [] }: PlanFindings,
  { strategy, stages }: PlanCandidate,
  split: SplitSpec | undefined,
): PlanDeployment {
  const { model, version } = models[0] ?? modelOfPath(path);
  const named = { name: model.replaceAll(/[^A-Za-z0-9_.-]/g, '-').slice(0, 63), model, version };
  if (split !== undefined) {
    const { cuts, digest, compression, shards } = split;
    return { ...named, replicas: 1, strategy: 'pipeline', split: { cuts, digest, compression, stages: shards } };
  }
  const devices = stages.flatMap((stage) => stage.devices as readonly PlanDevice[]);
  const replicas = devices.length;
  return {
    ...named,
    replicas,
    strategy: strategy === 'data' ? 'data' : 'pipeline',
    constraints: constraintsOf(devices),
  };
}

/** `<model>/<version>/model.onnx` as repositories have it, else the file's name. */
function modelOfPath(path: string): { readonly model: string; readonly version: string } {
  const parts = resolve(path).split(sep);
  const [folder = '', version = ''] = parts.slice(-3, -1);
  if (/^[1-9]\d*$/.test(version) && folder !== '') return { model: folder, version };
  const file = parts.at(-1) ?? '';
  return { model: file.replace(/\.onnx$/, ''), version: '1' };
}

/** By name where all devices of a stage have one, else by provider. */
function constraintsOf(devices: readonly PlanDevice[]): PlanDevice['constraints'] {
  const names = [...new Set(devices.flatMap(({ constraints }) => constraints.devices ?? []))];
  const hosts = [...new Set(devices.flatMap(({ constraints }) => constraints.hosts ?? []))];
  return devices.every(({ constraints }) => constraints.devices !== undefined)
    ? { ...(hosts.length === 0 ? {} : { hosts }), devices: names }
    : { providers: [...new Set(devices.map(({ provider }) => provider))] };
}

function refusalOf(device: PlanDevice, tables: PlanTables, meter: ShardMeter): string {
  const failure = meter.failure(device);
  if (failure !== '') return failure;
  const missing = tables.shardBytes(0, tables.bounds.length - 1, 1) - device.memoryBytes;
  return missing > 0 ? `the whole model does not fit: ${formatBytes(Math.ceil(missing))} are missing` : '';
}

function whyNone(
  { sloMs }: PlanRequest,
  { choice, tables, devices }: PlanFindings,
  rows: readonly PlanDeviceRow[],
): string {
  if (sloMs !== undefined && Number.isFinite(choice.latencyMsLeast)) {
    return `no plan answers within ${formatMs(sloMs)}; the fastest takes ${formatMs(choice.latencyMsLeast)}`;
  }
  // The smallest piece that no device takes says by how much.
  const largest = Math.max(...devices.map(({ memoryBytes }) => memoryBytes));
  let worst = 0;
  let at = -1;
  for (let segment = 0; segment + 1 < tables.bounds.length; segment += 1) {
    const bytes = tables.shardBytes(segment, segment + 1, 1);
    if (bytes > worst) {
      worst = bytes;
      at = segment;
    }
  }
  if (worst > largest) {
    const nodes = `nodes ${tables.bounds[at] ?? 0} to ${(tables.bounds[at + 1] ?? 1) - 1}`;
    return `${nodes} cannot be cut further and take ${formatBytes(Math.ceil(worst))}; the largest device has ${formatBytes(largest)}: ${formatBytes(Math.ceil(worst - largest))} are missing`;
  }
  const whole = tables.shardBytes(0, tables.bounds.length - 1, 1);
  const sum = devices.reduce((total, { memoryBytes }) => total + memoryBytes, 0);
  if (whole > sum) {
    return `the model takes ${formatBytes(Math.ceil(whole))}, all devices together have ${formatBytes(sum)}: ${formatBytes(Math.ceil(whole - sum))} are missing`;
  }
  const refusals = rows.filter(({ refusal }) => refusal !== '').map(({ id, refusal }) => `${id}: ${refusal}`);
  return `no cut fits the devices in their memory${refusals.length > 0 ? ` (${refusals.join('; ')})` : ''}`;
}

/** Shards of which there is a time, measured now or before. */
function measuredOf(device: PlanDevice, meter: ShardMeter): number {
  return meter.of(device).filter(({ ms }) => Number.isFinite(ms)).length;
}

function notesOf(
  { items, measureSeconds, contention: together = true }: PlanRequest,
  findings: PlanFindings,
): readonly string[] {
  const { devices, meter, batches, link, contention } = findings;
  const notes = [...findings.notes, ...meter.notes.slice(0, 20)];
  const emulated = devices.filter((device) => device.emulated).map(({ id }) => id);
  if (emulated.length > 0)
    notes.push(
      `${emulated.join(', ')} ${emulated.length === 1 ? 'is' : 'are'} emulated: estimated from the hardware profile, never measured`,
    );
  if (measureSeconds === 0) {
    const isKnown = devices.some((device) => measuredOf(device, meter) > 0);
    notes.push(
      isKnown
        ? 'nothing was measured now: times are those of the profile database, or estimates'
        : 'nothing was measured: every time is an estimate',
    );
  } else if (meter.isOver) notes.push(`the ${measureSeconds} s for measuring were not enough; see --measure-seconds`);
  if (batches.length === 1 && items > 1)
    notes.push('the model has no dimension for a batch: a request of several items is as many runs');
  const guessed = devices.some((from) =>
    devices.some((to) => !from.emulated && !to.emulated && from !== to && link(from, to).source === 'estimated'),
  );
  if (guessed && measureSeconds > 0) notes.push('some transfers between devices are estimated');
  const away = devices.filter((device) => !device.isHere && !device.emulated).map(({ id }) => id);
  if (away.length > 0 && measureSeconds > 0) {
    notes.push(
      `${away.join(', ')}: this machine has no such silicon, so nothing is measured of them beyond what the grid knows`,
    );
  }
  const processors = devices.filter(
    ({ provider, emulated: is, place }) => !is && place === undefined && (provider === 'cpu' || provider === 'wasm'),
  );
  if (processors.length > 1) {
    const names = processors.map(({ id, threads }) => `${id} (${threads} ${threads === 1 ? 'thread' : 'threads'})`);
    const kinds = processors.map(companionKind);
    const isCounted =
      together &&
      processors.every((device, index) => {
        const range = { from: 0, to: findings.cutter.graph.nodes.length, batch: 1 };
        return contention.beside(companionKind(device), kinds.toSpliced(index, 1))(range, 0).isMeasured;
      });
    const how = isCounted
      ? 'what they leave each other was measured and is in the requests/s'
      : 'measured one after the other, and slower when they run together by what its memory cannot give to all, which no figure here counts';
    notes.push(`${names.join(', ')} share one processor: ${how}`);
  }
  return notes;
}
