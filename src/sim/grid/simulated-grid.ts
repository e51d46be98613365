/**
 * One run of a simulated grid: hosts of the production code start, deployments become ready, clients ask, faults strike,
 * operators change things; then all is calm, and the grid must find together again. Everything follows from the scenario.
 *
 *     const report = await runScenario(drawScenario({ seed: 7, hosts: 20 }));
 */
import { gridKeys } from '#core/grid/keys.js';
import type { Deployment, HostOrder } from '#core/grid/records.js';
import { hostId, modelName, modelVersion } from '#core/ids.js';
import type { ErrorCode } from '#core/errors.js';
import { silentLog, type Log } from '#ports/log.js';
import type { Store, StoreOperation } from '#ports/store.js';
import { HostClock } from '../host-clock.js';
import { PretendNetwork } from '../pretend-network.js';
import { PretendStore } from '../pretend-store.js';
import { asCopy, type Dispatch } from '../pretend-travel.js';
import { Simulation } from '../simulation.js';
import { CalmChecks } from './calm-checks.js';
import { FaultInjector, type FiredFault } from './fault-injector.js';
import { strayNumber, type PlantedBug } from './planted-bugs.js';
import { hostNames, type GridScenario, type OperatorEvent } from './scenario.js';
import { SimulatedClients } from './simulated-clients.js';
import { SimulatedHost, type HostWorld, type Machine } from './simulated-host.js';
import { isStatefulModel, manifestOf, modelOf, SimulatedDisk, versionsPerModel } from './simulated-models.js';
import { SimulatedSequences } from './simulated-sequences.js';
import { StoreObserver } from './store-observer.js';
import { Violations, type Violation } from './violations.js';

export interface RunOptions {
  readonly bug?: PlantedBug;
  /** How messages travel between hosts. Default: as copies. */
  readonly dispatch?: Dispatch;
  /** Gets everything that the hosts log; silent when left out. */
  readonly log?: Log;
}

/** What came of a run. Plain data. */
export interface ScenarioReport {
  readonly seed: number;
  readonly hosts: number;
  readonly violations: readonly Violation[];
  /** With those whose texts were not kept. */
  readonly violationCount: number;
  readonly traceHash: string;
  readonly virtualMs: number;
  /** Tasks that ran on the virtual clock. */
  readonly steps: number;
  readonly requests: {
    readonly sent: number;
    readonly answered: number;
    readonly failed: Readonly<Partial<Record<ErrorCode, number>>>;
    /** Tries at gateways, and what gateways tried at devices. */
    readonly gatewayAttempts: number;
    /** Second attempts that gateways made before the first was late. */
    readonly hedges: number;
  };
  readonly sequences: {
    readonly begun: number;
    /** Answered to their ends, and requests of all that were. */
    readonly ended: number;
    readonly steps: number;
    /** Ended by a failure, by its code. */
    readonly broken: Readonly<Partial<Record<ErrorCode, number>>>;
  };
  readonly faults: readonly FiredFault[];
  /** Hosts that left at the end of a drain with a deadline, in that order. */
  readonly departed: readonly string[];
  readonly leaders: number;
  /** Virtual ms of calm until views, and what is served, were as they should be. */
  readonly viewsConvergedMs: number;
  readonly servedConvergedMs: number;
}

/** What is still on its way at the end may take so long: longer than any deadline, virtual ms. */
const settleMsMax = 15_000;
/** Least length of a run, and of the quiet end in which every request must succeed, virtual ms. */
const runMsMin = 120_000;
const quietMs = 5_000;
const quietRequests = 40;
const quietSequences = 4;
const checkMs = 250;
const faultsFiredMin = 5;
const forEver = { deadlineMs: Infinity };
const stepsMax = 2_000_000;

export async function runScenario(scenario: GridScenario, options: RunOptions = {}): Promise<ScenarioReport> {
  const grid = new SimulatedGrid(scenario, options);
  try {
    return await grid.run();
  } finally {
    grid.end();
  }
}

class SimulatedGrid {
  readonly #scenario: GridScenario;
  readonly #bug: PlantedBug | undefined;
  readonly #simulation: Simulation;
  readonly #world: HostWorld;
  readonly #machines = new Map<string, Machine & { readonly rate: number }>();
  readonly #hosts = new Map<string, SimulatedHost>();
  readonly #operator: Store;
  readonly #observer: StoreObserver;
  readonly #clients: SimulatedClients;
  readonly #sequences: SimulatedSequences;
  /** Of gateways whose processes have ended. */
  #hedges = 0;
  readonly #injector: FaultInjector;
  readonly #calm: CalmChecks;
  readonly #deployed = new Map<string, Deployment>();
  /** Ends when everything that operators did is in the store. */
  #written: Promise<unknown> = Promise.resolve();
  #isOver = false;
  readonly #departed: string[] = [];

  constructor(scenario: GridScenario, { bug, dispatch = asCopy, log = silentLog }: RunOptions) {
    this.#scenario = scenario;
    this.#bug = bug;
    const simulation = new Simulation({ seed: scenario.seed, stepsMax });
    this.#simulation = simulation;
    const { clock, random, trace } = simulation;
    const names = hostNames(scenario.hosts);
    const models = scenario.deployments.map(modelOf);
    const violations = new Violations(clock);
    const store = new PretendStore({ clock, random: random.stream('store'), latencyMs: [1, 5] });
    const network = new PretendNetwork({ clock, random: random.stream('network'), dispatch });
    const keys = gridKeys('simulated');
    this.#world = {
      simulation,
      network,
      store,
      keys,
      violations,
      models,
      names,
      log,
      bug,
      departed: (name) => this.#depart(name),
    };
    this.#operator = store.client('$operator');
    this.#observer = new StoreObserver(store.client('$observer'), keys, violations);
    const hostOf = (name: string): SimulatedHost | undefined => this.#hosts.get(name);
    const clients = { clock, trace, violations, names, bug, hostOf };
    const stateless = models.filter((model) => !isStatefulModel(model));
    this.#clients = new SimulatedClients({ ...clients, models: stateless, random: random.stream('clients') });
    const stateful = models.filter(isStatefulModel);
    this.#sequences = new SimulatedSequences({ ...clients, models: stateful, random: random.stream('sequences') });
    this.#makeMachines();
    const disks = new Map([...this.#machines].map(([name, { disk }]) => [name, disk]));
    this.#injector = new FaultInjector({
      ...{ clock, network, store, names, disks, hostOf },
      crash: (name, how) => this.#crash(name, how),
      start: (name) => this.#start(name),
    });
    this.#calm = new CalmChecks({
      hosts: () => [...this.#hosts.values()],
      observer: this.#observer,
      deployed: this.#deployed,
    });
  }

  async run(): Promise<ScenarioReport> {
    const { clock } = this.#simulation;
    const { faults, operators, requests, sequences = 0, stormMs } = this.#scenario;
    const [stormStartMs, stormEndMs] = stormMs;
    this.#publish();
    for (const name of this.#world.names) this.#start(name);
    for (const { name, replicas } of this.#scenario.deployments) this.#deploy(name, 1, replicas);
    // Drift strikes at the start, and everything else when the grid stands.
    this.#injector.schedule(faults);
    this.#watchMemory();
    await clock.settleUntil(stormStartMs);
    for (const event of operators) clock.scheduleAt(event.atMs, () => this.#operate(event));
    const everyMs = (stormEndMs - stormStartMs) / Math.max(1, requests);
    for (let index = 0; index < requests; index += 1) {
      const stray = this.#bug === 'stray-chance' ? strayNumber() / 1e6 : 0;
      clock.scheduleAt(stormStartMs + index * everyMs + stray, () => this.#clients.send());
    }
    this.#spread(sequences, stormStartMs, stormEndMs - stormStartMs, () => this.#sequences.begin());
    await clock.settleUntil(stormEndMs);
    if (this.#bug === 'two-owners') await this.#robTheLeader();
    const { viewsMs, servedMs } = await this.#calmDown();
    await this.#quietEnd();
    this.#injector.finish(faults);
    return this.#report(viewsMs, servedMs);
  }

  end(): void {
    this.#isOver = true;
    for (const host of this.#hosts.values()) host.end('killed');
  }

  #makeMachines(): void {
    const { clock, random } = this.#simulation;
    const draw = random.stream('machines');
    const hedging = random.stream('hedging');
    const tiers = ['core', 'regional', 'edge'] as const;
    const exchange = {
      isHeldBy: (sha256: string) => [...this.#hosts.values()].some(({ machine }) => machine.disk.holds(sha256)),
    };
    const drifts = new Map(
      this.#scenario.faults.filter(({ kind }) => kind === 'clock-drift').map(({ hosts, amount }) => [hosts[0], amount]),
    );
    this.#world.names.forEach((name, index) => {
      const disk = new SimulatedDisk(clock, exchange);
      // The first two hosts have all models in a repository.
      if (index < 2) for (const manifest of this.#manifests()) disk.put(manifest);
      this.#machines.set(name, {
        name,
        zone: `zone-${index % 3}`,
        tier: tiers[index % 3] ?? 'core',
        devices: draw.next() < 0.3 ? 2 : 1,
        copiesMax: 3 + Math.floor(draw.next() * 3),
        disk,
        isSameAddress: draw.next() < 0.7,
        hedgeShare: hedging.next() < 0.5 ? 0 : 0.2,
        rate: drifts.get(name) ?? 1,
      });
    });
  }

  #manifests(): readonly ReturnType<typeof manifestOf>[] {
    return this.#world.models.flatMap((model) =>
      Array.from({ length: versionsPerModel }, (_, index) => manifestOf(model, index + 1)),
    );
  }

  #start(name: string): void {
    const machine = this.#machines.get(name);
    if (machine === undefined || this.#hosts.has(name) || this.#isOver) return;
    const clock = new HostClock(this.#simulation.clock, { rate: machine.rate });
    this.#hosts.set(name, new SimulatedHost(this.#world, machine, clock));
  }

  #crash(name: string, how: 'killed' | 'unplugged'): void {
    const host = this.#hosts.get(name);
    if (host === undefined) return;
    this.#hosts.delete(name);
    this.#world.store.crash(name);
    this.#world.network.crash(name, how);
    this.#hedges += host.gateway.attemptCounts.hedges;
    host.end(how);
  }

  /** Its time to drain is over, and nobody starts it again. */
  #depart(name: string): void {
    this.#departed.push(name);
    this.#crash(name, 'killed');
  }

  #watchMemory(): void {
    const { clock } = this.#simulation;
    const look = (): void => {
      if (this.#isOver) return;
      for (const host of this.#hosts.values()) host.checkMemory();
      clock.schedule(checkMs, look);
    };
    look();
  }

  // --- operators

  #publish(): void {
    for (const manifest of this.#manifests()) {
      this.#write([put(this.#world.keys.model(manifest.model, manifest.version), manifest)]);
    }
  }

  #deploy(name: string, version: number, replicas: number): void {
    const deployment: Deployment = {
      format: 1,
      name,
      model: modelName(modelOf(this.#scenario.deployments.find((each) => each.name === name) ?? { name })),
      version: modelVersion(String(version)),
      replicas,
      constraints: {},
      spread: 'host',
      memoryBytes: 0,
      rollout: { surge: 1, progressMsMax: 60_000 },
    };
    this.#deployed.set(name, deployment);
    this.#write([put(this.#world.keys.deployment(name), deployment)]);
  }

  #operate({ kind, subject, amount }: OperatorEvent): void {
    const deployment = this.#deployed.get(subject);
    switch (kind) {
      case 'update':
        if (deployment !== undefined) this.#deploy(subject, amount, deployment.replicas ?? 1);
        return;
      case 'scale':
        if (deployment !== undefined) this.#deploy(subject, Number(deployment.version), amount);
        return;
      case 'cordon':
        this.#order(subject, { cordoned: true, draining: false }, 0);
        return;
      case 'drain':
        this.#order(subject, { cordoned: true, draining: true }, amount);
        return;
      case 'uncordon':
      case 'undrain':
        this.#write([{ type: 'delete', key: this.#world.keys.order(hostId(subject)) }]);
    }
  }

  /** @param withinMs Of a drain: the time after which the host leaves; 0: it stays. */
  #order(host: string, order: Pick<HostOrder, 'cordoned' | 'draining'>, withinMs: number): void {
    const deadlineWallMs = withinMs === 0 ? 0 : this.#simulation.clock.wallMs() + withinMs;
    const record: HostOrder = { format: 1, ...order, deadlineWallMs, reason: 'simulated' };
    this.#write([put(this.#world.keys.order(hostId(host)), record)]);
  }

  /** An operator tries again until the store has it, and does one thing after the other. */
  #write(operations: readonly StoreOperation[]): void {
    const { clock } = this.#simulation;
    const attempt = (): Promise<unknown> =>
      this.#operator
        .transact({ conditions: [], operations }, { deadlineMs: clock.nowMs() + 2_000 })
        .catch(() => new Promise((resolve) => clock.schedule(500, () => resolve(undefined))).then(attempt));
    this.#written = this.#written.then(attempt);
  }

  /** The planted thief: gives a host copies that are another's. */
  async #robTheLeader(): Promise<void> {
    const [victim, other] = [...this.#observer.assignments].filter(([, { record }]) => record.replicas.length > 0);
    if (victim === undefined) return;
    const [host, { record }] = victim;
    const thief = other?.[0] ?? this.#world.names.find((name) => name !== host) ?? '';
    const stolen = { ...record, host: hostId(thief), epoch: record.epoch - 1 };
    void this.#operator.transact(
      { conditions: [], operations: [put(this.#world.keys.assignment(hostId(thief)), stolen)] },
      forEver,
    );
    const { clock } = this.#simulation;
    await clock.settleUntil(clock.nowMs() + 100);
  }

  // --- the end

  async #calmDown(): Promise<{ readonly viewsMs: number; readonly servedMs: number }> {
    const { clock } = this.#simulation;
    const { violations } = this.#world;
    const startMs = clock.nowMs();
    let viewsMs: number | undefined;
    let servedMs: number | undefined;
    while (viewsMs === undefined || servedMs === undefined) {
      const waitedMs = clock.nowMs() - startMs;
      viewsMs ??= this.#calm.viewsProblem() === '' ? waitedMs : undefined;
      servedMs ??= this.#calm.servedProblem() === '' ? waitedMs : undefined;
      if (waitedMs >= calmMsMax) break;
      await clock.settleUntil(clock.nowMs() + checkMs);
    }
    const views = this.#calm.viewsProblem();
    if (viewsMs === undefined || views !== '')
      violations.report('views-converge', `after ${calmMsMax} ms of calm ${views}`);
    const served = this.#calm.servedProblem();
    if (servedMs === undefined || served !== '')
      violations.report('desired-is-actual', `after ${clock.nowMs() - startMs} ms of calm ${served}`);
    return { viewsMs: viewsMs ?? Infinity, servedMs: servedMs ?? Infinity };
  }

  /** Nothing may fail any more, and nothing may be left without an outcome. */
  async #quietEnd(): Promise<void> {
    const { clock } = this.#simulation;
    await clock.settleUntil(Math.max(clock.nowMs() + quietMs, runMsMin - quietMs));
    this.#clients.isCalm = true;
    this.#sequences.isCalm = true;
    this.#spread(quietRequests, clock.nowMs(), quietMs, () => this.#clients.send());
    if ((this.#scenario.sequences ?? 0) > 0)
      this.#spread(quietSequences, clock.nowMs(), quietMs, () => this.#sequences.begin());
    await clock.settleUntil(clock.nowMs() + quietMs);
    const endMs = clock.nowMs() + settleMsMax;
    while (this.#isBusy() && clock.nowMs() < endMs) await clock.settleUntil(clock.nowMs() + checkMs);
    this.#clients.checkUnanswered();
    for (const host of this.#hosts.values()) {
      const { requestsInFlight } = host.gateway;
      if (requestsInFlight > 0) {
        this.#world.violations.report(
          'answered-once',
          `${requestsInFlight} requests hang in the gateway of ${host.name}`,
        );
      }
    }
  }

  /** So many times, evenly over that time. */
  #spread(count: number, fromMs: number, durationMs: number, task: () => void): void {
    const { clock } = this.#simulation;
    for (let index = 0; index < count; index += 1) clock.scheduleAt(fromMs + (index * durationMs) / count, task);
  }

  #isBusy(): boolean {
    return (
      this.#clients.open + this.#sequences.open > 0 ||
      [...this.#hosts.values()].some(({ gateway }) => gateway.requestsInFlight > 0)
    );
  }

  #report(viewsConvergedMs: number, servedConvergedMs: number): ScenarioReport {
    const { violations } = this.#world;
    const { fired } = this.#injector;
    const { faults, seed, hosts } = this.#scenario;
    const firedCount = fired.filter((fault) => fault.fired > 0).length;
    if (faults.length >= faultsFiredMin && firedCount < faultsFiredMin) {
      violations.report('enough-faults', `only ${firedCount} of ${faults.length} faults have fired`);
    }
    const { counts } = this.#clients;
    const { begun, ended, steps, broken } = this.#sequences.counts;
    return {
      seed,
      hosts,
      violations: violations.kept,
      violationCount: violations.total,
      traceHash: this.#simulation.traceHash(),
      virtualMs: this.#simulation.clock.nowMs(),
      steps: this.#simulation.clock.steps,
      requests: {
        sent: counts.sent,
        answered: counts.answered,
        failed: Object.fromEntries(counts.failed),
        gatewayAttempts: counts.attempts,
        hedges: [...this.#hosts.values()].reduce(
          (sum, { gateway }) => sum + gateway.attemptCounts.hedges,
          this.#hedges,
        ),
      },
      sequences: { begun, ended, steps, broken: Object.fromEntries(broken) },
      faults: fired,
      departed: this.#departed,
      leaders: this.#observer.leaders,
      viewsConvergedMs,
      servedConvergedMs,
    };
  }
}

/** Longest time that views, and what is served, may take to be right once all is calm, virtual ms. */
const calmMsMax = 180_000;

function put(key: string, value: unknown): StoreOperation {
  return { type: 'put', key, value: JSON.stringify(value) };
}
