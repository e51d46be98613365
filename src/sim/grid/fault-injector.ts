/**
 * Makes faults happen and proves that they did: each one counts what it did to the grid, such as packets lost or calls
 * refused. A fault that met nobody has not fired.
 */
import type { PairFaults } from '../pretend-packets.js';
import type { PretendNetwork } from '../pretend-network.js';
import type { PretendStore } from '../pretend-store.js';
import type { VirtualClock } from '../virtual-clock.js';
import type { FaultEvent, FaultKind } from './scenario.js';
import type { SimulatedHost } from './simulated-host.js';
import type { SimulatedDisk } from './simulated-models.js';

export interface FaultWorld {
  readonly clock: VirtualClock;
  readonly network: PretendNetwork;
  readonly store: PretendStore;
  readonly names: readonly string[];
  readonly disks: ReadonlyMap<string, SimulatedDisk>;
  hostOf(name: string): SimulatedHost | undefined;
  /** Ends the process of a host. */
  crash(name: string, how: 'killed' | 'unplugged'): void;
  start(name: string): void;
}

export interface FiredFault {
  readonly kind: FaultKind;
  readonly atMs: number;
  readonly hosts: readonly string[];
  /** How often it bit; 0: it met nobody. */
  readonly fired: number;
}

interface Running {
  /** Ends it, and says how often it bit. */
  end(): number;
}

export class FaultInjector {
  readonly #world: FaultWorld;
  readonly fired: FiredFault[] = [];
  /** Network faults that last, newest last: the newest counts. */
  readonly #weather: Partial<PairFaults>[] = [];
  readonly #cuts = new Map<string, number>();

  constructor(world: FaultWorld) {
    this.#world = world;
  }

  schedule(faults: readonly FaultEvent[]): void {
    const { clock } = this.#world;
    for (const fault of faults) {
      clock.scheduleAt(fault.atMs, () => {
        const running = this.#begin(fault);
        const { kind, atMs, hosts } = fault;
        if (kind === 'clock-drift') return;
        clock.schedule(fault.durationMs, () => this.fired.push({ kind, atMs, hosts, fired: running.end() }));
      });
    }
  }

  /** What lasts for the whole run is counted at its end. */
  finish(faults: readonly FaultEvent[]): void {
    for (const { kind, atMs, hosts } of faults) {
      if (kind !== 'clock-drift') continue;
      const host = this.#world.hostOf(hosts[0] ?? '');
      const driftMs = host === undefined ? 0 : Math.abs(host.clock.nowMs() - this.#world.clock.nowMs());
      this.fired.push({ kind, atMs, hosts, fired: driftMs > 10 ? Math.round(driftMs) : 0 });
    }
  }

  #begin(fault: FaultEvent): Running {
    const { network, store, clock, names, disks } = this.#world;
    const [first = '', second = ''] = fault.hosts;
    const { amount } = fault;
    switch (fault.kind) {
      case 'loss':
        return this.#blow({ loss: amount }, () => network.counts.lost);
      case 'delay':
        return this.#blow({ delayMsMin: amount / 2, delayMsMax: amount }, () => network.counts.packets);
      case 'duplication':
        return this.#blow({ duplication: amount }, () => network.counts.duplicated);
      case 'reordering':
        return this.#blow({ reordering: amount, reorderMs: 50 }, () => network.counts.reordered);
      case 'one-way-partition': {
        const others = [second, ...names.filter((name) => name !== first && name !== second)].slice(0, amount);
        const before = network.counts.cut;
        for (const other of others) this.#cut(first, other, 1);
        return counted(
          () => network.counts.cut - before,
          () => {
            for (const other of others) this.#cut(first, other, -1);
          },
        );
      }
      case 'slow-host': {
        const host = this.#world.hostOf(first);
        const before = host?.runs ?? 0;
        if (host !== undefined) host.slowness = amount;
        network.slow(first, slowMs);
        const packets = network.counts.packets;
        return counted(
          () => (host === undefined ? 0 : host.runs - before + (network.counts.packets > packets ? 1 : 0)),
          () => {
            if (host !== undefined) host.slowness = 1;
            network.slow(first, 0);
          },
        );
      }
      case 'crash':
      case 'unplug':
      case 'restart': {
        const isRunning = this.#world.hostOf(first) !== undefined;
        if (isRunning) this.#world.crash(first, fault.kind === 'unplug' ? 'unplugged' : 'killed');
        return counted(
          () => (isRunning ? 1 : 0),
          () => {
            if (isRunning) this.#world.start(first);
          },
        );
      }
      case 'lease-loss': {
        const before = store.fired['lease-loss'];
        store.loseLeases(first);
        return counted(() => store.fired['lease-loss'] - before);
      }
      case 'watch-gap': {
        const before = store.fired['watch-gap'];
        store.breakWatches(first === '' ? undefined : first);
        return counted(() => store.fired['watch-gap'] - before);
      }
      case 'store-away': {
        const count = (): number => store.fired.away + store.fired.silent;
        const before = count();
        store.away(amount === 0 ? 'refused' : 'silent');
        return counted(
          () => count() - before,
          () => store.back(),
        );
      }
      case 'clock-drift':
        return counted(() => 0);
      case 'clock-step': {
        const host = this.#world.hostOf(first);
        const before = host?.clock.wallMs() ?? 0;
        host?.clock.stepWall(amount);
        return counted(() => (host === undefined || host.clock.wallMs() === before ? 0 : 1));
      }
      case 'process-pause': {
        const host = this.#world.hostOf(first);
        if (host === undefined || host.clock.isStopped) return counted(() => 0);
        host.clock.stop();
        network.freeze(first);
        let held = 0;
        return counted(
          () => held,
          () => {
            if (!host.isAlive) return;
            held = host.clock.heldTasks;
            host.resumedMs = clock.nowMs();
            host.clock.resume();
            network.thaw(first);
          },
        );
      }
      case 'full-disk': {
        const count = (): number => [...disks.values()].reduce((sum, { refusals }) => sum + refusals, store.fired.full);
        const before = count();
        for (const disk of disks.values()) disk.isFull = true;
        store.setFull(true);
        return counted(
          () => count() - before,
          () => {
            for (const disk of disks.values()) disk.isFull = false;
            store.setFull(false);
          },
        );
      }
    }
  }

  /** Faults of the whole network add up; what one of them changes goes when it ends. */
  #blow(faults: Partial<PairFaults>, count: () => number): Running {
    const before = count();
    this.#weather.push(faults);
    this.#applyWeather();
    return counted(
      () => count() - before,
      () => {
        this.#weather.splice(this.#weather.indexOf(faults), 1);
        this.#applyWeather();
      },
    );
  }

  #applyWeather(): void {
    const { network } = this.#world;
    network.faultsEverywhere(Object.assign({ ...calm }, ...this.#weather) as Partial<PairFaults>);
    for (const [pair, count] of this.#cuts) if (count > 0) this.#applyCut(pair);
  }

  #cut(from: string, to: string, change: 1 | -1): void {
    const pair = `${from} ${to}`;
    this.#cuts.set(pair, (this.#cuts.get(pair) ?? 0) + change);
    this.#applyCut(pair);
  }

  #applyCut(pair: string): void {
    const [from = '', to = ''] = pair.split(' ');
    this.#world.network.faults(from, to, { cut: (this.#cuts.get(pair) ?? 0) > 0 });
  }
}

/** Added to every packet of a slow host, ms. */
const slowMs = 15;
const calm = { delayMsMin: 0.2, delayMsMax: 0.4, loss: 0, duplication: 0, reordering: 0 };

function counted(count: () => number, end: () => void = () => {}): Running {
  return {
    end: () => {
      end();
      return count();
    },
  };
}
