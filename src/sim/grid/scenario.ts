/**
 * What happens to a simulated grid, as plain data: which hosts there are, what is deployed, which faults strike when, what
 * operators do. A seed draws one; a file holds one, so that a run that failed can be run again and cut down by hand.
 */
import { intarsiaError } from '#core/errors.js';
import type { Random } from '#ports/random.js';
import { seededRandom } from '../random.js';

export const faultKinds = [
  'loss',
  'delay',
  'duplication',
  'reordering',
  'one-way-partition',
  'slow-host',
  'crash',
  'unplug',
  'restart',
  'lease-loss',
  'store-away',
  'watch-gap',
  'clock-drift',
  'clock-step',
  'process-pause',
  'full-disk',
] as const;
export type FaultKind = (typeof faultKinds)[number];

/** One fault: from a moment on, for a while. */
export interface FaultEvent {
  readonly kind: FaultKind;
  /** Virtual ms since the start. */
  readonly atMs: number;
  /** How long it lasts; a crashed host is started again after it. Drift lasts for the whole run. */
  readonly durationMs: number;
  /** Hosts it strikes, in the order that the fault gives a meaning; none: everywhere. */
  readonly hosts: readonly string[];
  /** A chance, a time in ms or a factor, as the fault needs. */
  readonly amount: number;
}

/** What an operator does. */
export interface OperatorEvent {
  readonly kind: 'update' | 'scale' | 'cordon' | 'uncordon' | 'drain' | 'undrain';
  readonly atMs: number;
  /** Host, or deployment. */
  readonly subject: string;
  /** Version, or copies; 0 where it means nothing. */
  readonly amount: number;
}

export interface ScenarioDeployment {
  readonly name: string;
  readonly replicas: number;
  /** Its model keeps states of sequences. */
  readonly stateful?: boolean;
}

export interface GridScenario {
  readonly format: 1;
  /** Seeds everything that is drawn while it runs: latencies, arrivals, picks. */
  readonly seed: number;
  readonly hosts: number;
  readonly deployments: readonly ScenarioDeployment[];
  /** Requests that clients send while faults strike, spread evenly. */
  readonly requests: number;
  /** Sequences of requests to stateful models that clients begin meanwhile; none when left out. */
  readonly sequences?: number;
  /** Faults strike between the two, virtual ms; after the second everything is calm. */
  readonly stormMs: readonly [number, number];
  readonly faults: readonly FaultEvent[];
  readonly operators: readonly OperatorEvent[];
}

export interface DrawOptions {
  readonly seed: number;
  /** 2 to 1,000. */
  readonly hosts: number;
  /** Which faults may strike; all when left out. */
  readonly kinds?: readonly FaultKind[];
  /** Default 1,000. */
  readonly requests?: number;
}

const stormMs = [20_000, 95_000] as const;
const faultsMin = 7;
const faultsMax = 12;
/** Fewer hosts have no room for another model. */
const statefulHostsMin = 6;
const sequencesPerRequest = 0.04;

/** The same seed draws the same scenario. */
export function drawScenario({ seed, hosts, kinds = faultKinds, requests = 1_000 }: DrawOptions): GridScenario {
  const random = seededRandom(seed).stream('scenario');
  const names = hostNames(hosts);
  const count = kinds.length === 0 ? 0 : whole(random, faultsMin, faultsMax);
  const faults = drawFaults(random, kinds, names, count);
  const deployments: ScenarioDeployment[] = Array.from({ length: whole(random, 1, 3) }, (_, index) => ({
    name: `d${index + 1}`,
    replicas: whole(random, 2, Math.max(2, Math.min(5, hosts - 1))),
  }));
  const isStateful = hosts >= statefulHostsMin;
  if (isStateful) deployments.push({ name: 's1', replicas: 2, stateful: true });
  const operators: OperatorEvent[] = [];
  // Whoever writes nothing is not hurt by a full disk: something is rolled out while it is full.
  for (const { kind, atMs } of faults) {
    if (kind !== 'full-disk') continue;
    operators.push({
      kind: 'update',
      atMs: atMs + 500,
      subject: one(random, deployments).name,
      amount: whole(random, 1, 3),
    });
  }
  for (let index = whole(random, 1, 4); index > 0; index -= 1) drawOperation(random, names, deployments, operators);
  const byTime = (left: { readonly atMs: number }, right: { readonly atMs: number }): number => left.atMs - right.atMs;
  return {
    format: 1,
    seed,
    hosts,
    deployments,
    requests,
    sequences: isStateful ? Math.ceil(requests * sequencesPerRequest) : 0,
    stormMs,
    faults: faults.sort(byTime),
    operators: operators.sort(byTime),
  };
}

export function hostNames(hosts: number): readonly string[] {
  return Array.from({ length: hosts }, (_, index) => `host-${index + 1}`);
}

/** @throws INVALID_ARGUMENT when the data is not a scenario; says what is wrong. */
export function readScenario(data: unknown): GridScenario {
  const wrong = (what: string): Error => intarsiaError('INVALID_ARGUMENT', `the scenario ${what}`);
  if (typeof data !== 'object' || data === null) throw wrong('is not an object');
  const scenario = data as Partial<GridScenario>;
  if (scenario.format !== 1) throw wrong(`has format ${String(scenario.format)}; this version reads 1`);
  const { seed, hosts, requests } = scenario;
  if (typeof seed !== 'number') throw wrong('has no number `seed`');
  if (typeof hosts !== 'number' || !(hosts >= 2 && hosts <= 1_000)) throw wrong('needs `hosts`, 2 to 1,000');
  if (typeof requests !== 'number' || !(requests >= 0 && requests <= 1e6))
    throw wrong('needs `requests`, 0 to 1,000,000');
  const { sequences = 0 } = scenario;
  if (!(sequences >= 0 && sequences <= 1e6)) throw wrong('needs `sequences`, 0 to 1,000,000');
  for (const field of ['deployments', 'faults', 'operators', 'stormMs'] as const) {
    if (!Array.isArray(scenario[field])) throw wrong(`needs a list \`${field}\``);
  }
  const names = new Set(hostNames(hosts));
  for (const fault of scenario.faults ?? []) {
    if (!faultKinds.includes(fault.kind)) throw wrong(`has a fault of the unknown kind ${JSON.stringify(fault.kind)}`);
    for (const host of fault.hosts)
      if (!names.has(host)) throw wrong(`names host ${JSON.stringify(host)}, which it does not have`);
  }
  return scenario as GridScenario;
}

/** A process that is not running cannot be hurt: what strikes one host strikes it while no other fault has it down. */
function drawFaults(
  random: Random,
  kinds: readonly FaultKind[],
  names: readonly string[],
  count: number,
): FaultEvent[] {
  const faults: FaultEvent[] = [];
  for (let draws = count * drawsPerFault; draws > 0 && faults.length < count; draws -= 1) {
    const fault = drawFault(random, kinds, names);
    if (!faults.some((other) => isMoot(fault, other) || isMoot(other, fault))) faults.push(fault);
  }
  return faults;
}

/** Whether the first may meet nobody, because of the second. */
function isMoot(fault: FaultEvent, other: FaultEvent): boolean {
  if (!fellingKinds.has(other.kind) || wideKinds.has(fault.kind) || fault.hosts[0] !== other.hosts[0]) return false;
  return fault.atMs + fault.durationMs >= other.atMs && fault.atMs <= other.atMs + other.durationMs + recoveryMs;
}

/** Kinds that end or stop a process, and those that are not about processes. */
const fellingKinds: ReadonlySet<FaultKind> = new Set(['crash', 'unplug', 'restart', 'process-pause']);
const wideKinds: ReadonlySet<FaultKind> = new Set(['one-way-partition', 'clock-drift']);
/** A host that was down is in the grid again after about so long, ms. */
const recoveryMs = 10_000;
const drawsPerFault = 10;

function drawFault(random: Random, kinds: readonly FaultKind[], names: readonly string[]): FaultEvent {
  const kind = one(random, kinds);
  const atMs = whole(random, stormMs[0], stormMs[1] - 20_000);
  const durationMs = whole(random, 2_000, 18_000);
  const [first, second] = twoOf(random, names);
  const fault = (hosts: readonly string[], amount: number, lastsMs = durationMs): FaultEvent => ({
    kind,
    atMs,
    durationMs: lastsMs,
    hosts,
    amount,
  });
  switch (kind) {
    case 'loss':
      return fault([], share(random, 0.01, 0.15));
    case 'delay':
      return fault([], whole(random, 20, 300));
    case 'duplication':
    case 'reordering':
      return fault([], share(random, 0.05, 0.3));
    case 'one-way-partition':
      return fault([first, second], whole(random, 1, names.length - 1));
    case 'slow-host':
      return fault([first], 5);
    case 'clock-drift':
      return {
        kind,
        atMs: 0,
        durationMs: 0,
        hosts: [first],
        amount: random.next() < 0.5 ? 1 + drift(random) : 1 - drift(random),
      };
    case 'clock-step':
      return fault([first], whole(random, -86_400_000, 86_400_000), 0);
    case 'store-away':
      return fault([], random.next() < 0.5 ? 0 : 1);
    case 'lease-loss':
      return fault([first], 0, 0);
    case 'watch-gap':
      return fault(random.next() < 0.5 ? [first] : [], 0, 0);
    case 'restart':
      return fault([first], 0, whole(random, 50, 1_500));
    case 'full-disk':
      return fault([], 0);
    default:
      return fault([first], 0);
  }
}

function drawOperation(
  random: Random,
  names: readonly string[],
  deployments: GridScenario['deployments'],
  operators: OperatorEvent[],
): void {
  const atMs = whole(random, stormMs[0], stormMs[1] - 20_000);
  const deployment = one(random, deployments);
  const host = one(random, names);
  const untilMs = atMs + whole(random, 2_000, 20_000);
  switch (whole(random, 0, 3)) {
    case 0:
      operators.push({ kind: 'update', atMs, subject: deployment.name, amount: whole(random, 1, 3) });
      return;
    case 1:
      operators.push({
        kind: 'scale',
        atMs,
        subject: deployment.name,
        amount: whole(random, 1, Math.max(2, Math.min(5, names.length - 1))),
      });
      return;
    case 2:
      operators.push({ kind: 'cordon', atMs, subject: host, amount: 0 });
      operators.push({ kind: 'uncordon', atMs: untilMs, subject: host, amount: 0 });
      return;
    default:
      operators.push({ kind: 'drain', atMs, subject: host, amount: 0 });
      operators.push({ kind: 'undrain', atMs: untilMs, subject: host, amount: 0 });
  }
}

function whole(random: Random, min: number, max: number): number {
  return min + Math.floor(random.next() * (max - min + 1));
}

function share(random: Random, min: number, max: number): number {
  return Math.round((min + random.next() * (max - min)) * 10_000) / 10_000;
}

function one<Item>(random: Random, items: readonly Item[]): Item {
  const item = items[Math.floor(random.next() * items.length)];
  if (item === undefined) throw intarsiaError('INVALID_ARGUMENT', 'there is nothing to draw from');
  return item;
}

/** How far a clock is from the right rate: too little to be called drift is left out. */
function drift(random: Random): number {
  return share(random, 0.001, 0.03);
}

function twoOf(random: Random, names: readonly string[]): readonly [string, string] {
  const first = one(random, names);
  const second = one(
    random,
    names.filter((name) => name !== first),
  );
  return [first, second];
}
