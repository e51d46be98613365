/**
 * One run of a simulated grid: hosts of the production code start, deployments become ready, clients ask, faults strike,
 * operators change things; then all is calm, and the grid must find together again. Everything follows from the scenario.
 *
 *     const report = await runScenario(drawScenario({ seed: 7, hosts: 20 }));
 */
import { gridKeys } from '#core/grid/keys.js';
import type { ModelManifest } from '#core/grid/records.js';
import { silentLog, type Log } from '#ports/log.js';
import { HostClock } from '../host-clock.js';
import { PretendNetwork } from '../pretend-network.js';
import { PretendStore } from '../pretend-store.js';
import { asCopy, type Dispatch } from '../pretend-travel.js';
import { Simulation } from '../simulation.js';
import { CalmChecks } from './calm-checks.js';
import { FaultInjector } from './fault-injector.js';
import { strayNumber, type PlantedBug } from './planted-bugs.js';
import type { ScenarioReport } from './scenario-report.js';
import { hostNames, type GridScenario } from './scenario.js';
import { SimulatedClients } from './simulated-clients.js';
import { SimulatedHost, type HostWorld, type Machine } from './simulated-host.js';
import { isStatefulModel, manifestOf, modelOf, SimulatedDisk, versionsPerModel } from './simulated-models.js';
import { SimulatedOperators } from './simulated-operators.js';
import { SimulatedSequences } from './simulated-sequences.js';
import { StoreObserver } from './store-observer.js';
import { Violations } from './violations.js';

export interface RunOptions {
  readonly bug?: PlantedBug;
  /** How messages travel between hosts. Default: as copies. */
  readonly dispatch?: Dispatch;
  /** Gets everything that the hosts log; silent when left out. */
  readonly log?: Log;
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
/** Time in which what the planted thief wrote is seen, virtual ms. */
const robbedMs = 100;
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
  readonly #operators: SimulatedOperators;
  readonly #observer: StoreObserver;
  readonly #clients: SimulatedClients;
  readonly #sequences: SimulatedSequences;
  /** Of gateways whose processes have ended. */
  #hedges = 0;
  readonly #injector: FaultInjector;
  readonly #calm: CalmChecks;
  /** Of every version of every model. */
  readonly #manifests: readonly ModelManifest[];
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
    this.#manifests = models.flatMap((model) =>
      Array.from({ length: versionsPerModel }, (_, index) => manifestOf(model, index + 1)),
    );
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
    this.#observer = new StoreObserver(store.client('$observer'), keys, violations);
    const operator = { store: store.client('$operator'), keys, clock, deployments: scenario.deployments };
    this.#operators = new SimulatedOperators(operator);
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
      deployed: this.#operators.deployed,
    });
  }

  async run(): Promise<ScenarioReport> {
    const { clock } = this.#simulation;
    const { faults, operators, requests, sequences = 0, stormMs } = this.#scenario;
    const [stormStartMs, stormEndMs] = stormMs;
    this.#operators.publish(this.#manifests);
    for (const name of this.#world.names) this.#start(name);
    for (const { name, replicas } of this.#scenario.deployments) this.#operators.deploy(name, 1, replicas);
    // Drift strikes at the start, and everything else when the grid stands.
    this.#injector.schedule(faults);
    this.#watchMemory();
    await clock.settleUntil(stormStartMs);
    for (const event of operators) clock.scheduleAt(event.atMs, () => this.#operators.operate(event));
    const everyMs = (stormEndMs - stormStartMs) / Math.max(1, requests);
    for (let index = 0; index < requests; index += 1) {
      const stray = this.#bug === 'stray-chance' ? strayNumber() / 1e6 : 0;
      clock.scheduleAt(stormStartMs + index * everyMs + stray, () => this.#clients.send());
    }
    this.#spread(sequences, stormStartMs, stormEndMs - stormStartMs, () => this.#sequences.begin());
    await clock.settleUntil(stormEndMs);
    if (this.#bug === 'two-owners') {
      this.#operators.rob(this.#observer.assignments, this.#world.names);
      await clock.settleUntil(clock.nowMs() + robbedMs);
    }
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
      if (index < 2) for (const manifest of this.#manifests) disk.put(manifest);
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
