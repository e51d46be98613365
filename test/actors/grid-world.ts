/** A grid on virtual time: hosts with membership, detector and election over the pretend store and the pretend network. */
import { detectorActor, type DetectorInbox } from '#actors/detector/actor.js';
import { electionActor, type ElectionInbox } from '#actors/election/actor.js';
import type { Leadership } from '#actors/election/protocol.js';
import { membershipActor, type MembershipInbox } from '#actors/membership/actor.js';
import type { JoinOutcome, ViewNews } from '#actors/membership/protocol.js';
import type { DeviceLoad } from '#core/grid/host-load.js';
import { gridKeys } from '#core/grid/keys.js';
import type { HostRecord } from '#core/grid/records.js';
import { hostId, type HostId } from '#core/ids.js';
import { silentDiagnostics } from '#ports/diagnostics.js';
import type { Store } from '#ports/store.js';
import type { ActorRef } from '#runtime/actor.js';
import { entranceOf } from '#runtime/entrance.js';
import type { ActorSystem } from '#runtime/system.js';
import { HostClock } from '#sim/host-clock.js';
import { PretendNetwork, type PretendNetworkOptions } from '#sim/pretend-network.js';
import { PretendStore, type PretendStoreOptions } from '#sim/pretend-store.js';
import { Simulation } from '#sim/simulation.js';

export const keys = gridKeys('test');

export interface GridWorldOptions {
  readonly seed?: string | number;
  readonly leaseMs?: number;
  readonly elections?: boolean;
  readonly network?: Partial<PretendNetworkOptions>;
  readonly store?: Partial<PretendStoreOptions>;
  readonly stepsMax?: number;
}

export class GridHost {
  readonly name: HostId;
  readonly clock: HostClock;
  readonly system: ActorSystem;
  readonly store: Store;
  readonly membership: ActorRef<MembershipInbox>;
  readonly detector: ActorRef<DetectorInbox>;
  readonly election: ActorRef<ElectionInbox> | undefined;
  readonly record: HostRecord;
  /** Everything membership said, oldest first. */
  readonly newsSeen: ViewNews[] = [];
  readonly leadershipSeen: Leadership[] = [];
  joined: JoinOutcome | undefined;
  load: readonly DeviceLoad[] = [];
  isAlive = true;

  constructor(world: GridWorld, name: string, changes: Partial<HostRecord> & { readonly rate?: number } = {}) {
    const { simulation, network, options } = world;
    const { rate, ...recordChanges } = changes;
    this.name = hostId(name);
    this.clock = new HostClock(simulation.clock, rate === undefined ? {} : { rate });
    const links = network.host(name);
    this.system = simulation.system({
      host: name,
      clock: this.clock,
      remote: links,
      incarnationMin: links.incarnationMin,
      diagnostics: silentDiagnostics,
    });
    links.attach(entranceOf(this.system));
    this.store = world.store.client(name, this.clock);
    this.record = { ...recordOf(name, links.process), ...recordChanges };
    const { store, record } = this;
    const { process } = record;
    const leaseMs = options.leaseMs ?? 10_000;
    this.membership = this.system.spawn('membership', membershipActor({ store, keys, record, leaseMs }));
    this.detector = this.system.spawn(
      'detector',
      detectorActor({
        host: this.name,
        process,
        store,
        keys,
        membership: this.membership,
        detectorOf: (host) => this.system.ref({ host, path: 'detector', incarnation: 0 }),
        readLoad: () => this.load,
      }),
    );
    if (options.elections === true) {
      const { membership } = this;
      this.election = this.system.spawn(
        'election',
        electionActor({ host: this.name, process, store, keys, membership, isCandidate: true }),
      );
      this.election.tell({ type: 'subscribe', subscriber: keep((each) => this.leadershipSeen.push(each)) });
    }
    this.membership.tell({ type: 'subscribe', subscriber: keep((news: ViewNews) => this.keepNews(news)) });
    this.membership.tell({ type: 'join', replyTo: keep((outcome: JoinOutcome) => (this.joined = outcome)) });
  }

  get news(): ViewNews {
    const news = this.newsSeen.at(-1);
    if (news === undefined) throw new Error(`host ${this.name} has said nothing yet`);
    return news;
  }

  get leadership(): Leadership | undefined {
    return this.leadershipSeen.at(-1);
  }

  /** `name state` of every host in its view, sorted; `up` is left out. */
  get sees(): string {
    return [...this.news.view.hosts]
      .map(([host, { state }]) => (state === 'up' ? host : `${host} ${state}`))
      .sort()
      .join(', ');
  }

  /** In view and up. */
  trusts(host: string): boolean {
    return this.news.view.hosts.get(hostId(host))?.state === 'up';
  }

  private keepNews(news: ViewNews): void {
    this.newsSeen.push(news);
    if (this.newsSeen.length > 2_000) this.newsSeen.splice(0, 1_000);
  }
}

export class GridWorld {
  readonly options: GridWorldOptions;
  readonly simulation: Simulation;
  readonly store: PretendStore;
  readonly network: PretendNetwork;
  readonly hosts = new Map<string, GridHost>();

  constructor(options: GridWorldOptions = {}) {
    this.options = options;
    this.simulation = new Simulation({ seed: options.seed ?? 1, stepsMax: options.stepsMax ?? 10_000_000 });
    const { clock, random } = this.simulation;
    this.store = new PretendStore({ clock, random: random.stream('store'), latencyMs: [1, 5], ...options.store });
    this.network = new PretendNetwork({ clock, random: random.stream('network'), ...options.network });
  }

  get nowMs(): number {
    return this.simulation.clock.nowMs();
  }

  start(name: string, changes?: Partial<HostRecord> & { readonly rate?: number }): GridHost {
    const host = new GridHost(this, name, changes);
    this.hosts.set(name, host);
    return host;
  }

  /** Hosts a, b, c and so on, all in all views. */
  async startMany(count: number): Promise<readonly GridHost[]> {
    const hosts = Array.from({ length: count }, (_, index) => this.start(String.fromCharCode(97 + index)));
    await this.until('all are in all views', () => hosts.every((host) => host.news.view.hosts.size === count));
    await this.pass(2_000);
    return hosts;
  }

  /** `kill -9`: its links say so, the store hears nothing more. */
  kill(host: GridHost, how: 'killed' | 'unplugged' = 'killed'): void {
    host.isAlive = false;
    this.hosts.delete(host.name);
    this.store.crash(host.name);
    this.network.crash(host.name, how);
    host.system.terminate();
  }

  /** SIGSTOP and SIGCONT. */
  pause(host: GridHost): void {
    host.clock.stop();
    this.network.freeze(host.name);
  }

  resume(host: GridHost): void {
    host.clock.resume();
    this.network.thaw(host.name);
  }

  pass(durationMs: number): Promise<void> {
    return this.simulation.clock.settleUntil(this.nowMs + durationMs);
  }

  /** Lets time pass until this is so; the time that took, ms. */
  async until(what: string, condition: () => boolean, withinMs = 60_000): Promise<number> {
    const startMs = this.nowMs;
    for (;;) {
      await this.pass(20);
      if (condition()) return this.nowMs - startMs;
      if (this.nowMs - startMs < withinMs) continue;
      const views = [...this.hosts.values()].map(
        (host) => `${host.name}: ${host.newsSeen.length === 0 ? '-' : host.sees}`,
      );
      throw new Error(`after ${withinMs} ms it is not so that ${what}; views: ${views.slice(0, 10).join(' | ')}`);
    }
  }

  end(): void {
    for (const host of this.hosts.values()) this.kill(host);
  }
}

/** Somewhere for replies to go. */
export function keep<Reply>(take: (reply: Reply) => unknown): { tell(reply: Reply): 'accepted' } {
  return {
    tell: (reply) => {
      take(reply);
      return 'accepted';
    },
  };
}

export function recordOf(name: string, process: string): HostRecord {
  return {
    format: 1,
    host: hostId(name),
    process,
    linkAddress: `${name}:${process}`,
    grpcEndpoint: '',
    httpEndpoint: '',
    role: 'host',
    softwareVersion: '0.0.0',
    linkVersions: [1, 1],
    tier: 'core',
    zone: '',
    labels: {},
    spot: false,
    devices: [],
  };
}
