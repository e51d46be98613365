/**
 * The routing table of a gateway in a grid: membership, what every host says it serves, and the own host's catalogue,
 * folded into one catalogue and one list of candidates per model version.
 *
 * Changes are cheap and a table is made only when asked: what one host changed costs as much as the versions it serves,
 * and everything else is taken over from the table before. Who asks how often is the routing actor's business.
 */
import type { Catalog } from '../catalog.js';
import type { DeviceId, HostId, ModelName, ModelVersion } from '../ids.js';
import type { Candidate, Picker } from '../picker.js';
import type { RoutingTable } from '../routing-table.js';
import { emptyCatalog } from '../catalog.js';
import type { PeerStatus } from './host-load.js';
import { GridReplicas } from './grid-replicas.js';
import { awaitedEntry, mergedEntry, versionParts, type PlacedReplica, type VersionParts } from './grid-versions.js';
import { splitParts, withSplit, type BuiltModel } from './grid-splits.js';
import { emptyView, type ActualReplica, type HostActual, type View, type ViewHost } from './records.js';
import type { ServedFacts } from './served-facts.js';
import { pieceModelName, readShardName } from '../split/split-spec.js';
import type { SpreadStrategy } from '../split/spread-rule.js';

export interface GridTableOptions {
  /** The gateway's own host. */
  readonly host: HostId;
  readonly picker: Picker;
}

export interface GridRoutingTable extends RoutingTable {
  readonly reserve: ReadonlyMap<ModelName, ReadonlyMap<ModelVersion, readonly Candidate[]>>;
}

/** What the table keeps of a model. */
interface ModelSlot {
  /** Replicas on other hosts by `version` and then by `host/device`. */
  readonly versions: Map<ModelVersion, Map<string, ActualReplica & { readonly host: HostId }>>;
}

export class GridTable {
  readonly #options: GridTableOptions;
  readonly #replicas: GridReplicas;
  readonly #actuals = new Map<HostId, HostActual>();
  readonly #peers = new Map<HostId, PeerStatus>();
  readonly #facts = new Map<string, ServedFacts>();
  readonly #models = new Map<ModelName, ModelSlot>();
  readonly #defaults = new Map<ModelName, ModelVersion>();
  readonly #strategies = new Map<ModelName, SpreadStrategy>();
  readonly #changed = new Set<ModelName>();
  /** By model: names of the shards that hosts have of it. */
  readonly #shards = new Map<ModelName, Set<ModelName>>();
  /** What clients may not see: the entries of shards. */
  readonly #built = new Map<ModelName, BuiltModel>();
  #view: View = emptyView;
  #own: Catalog = emptyCatalog;
  #table: GridRoutingTable;
  #revision = 0;

  constructor(options: GridTableOptions) {
    this.#options = options;
    this.#replicas = new GridReplicas(options.host);
    this.#table = { catalog: emptyCatalog, candidates: new Map(), reserve: new Map(), picker: options.picker };
  }

  /** Whether `table` would differ from the last one. */
  get hasChanges(): boolean {
    return this.#changed.size > 0;
  }

  get view(): View {
    return this.#view;
  }

  /**
   * Another membership. Views come in order: a lower revision is of a store that has begun anew. Revision 0, of a membership
   * that begins anew itself and has read nothing yet, is passed over.
   */
  setView(view: View): void {
    if (view === this.#view || (view.revision === 0 && this.#view.revision > 0)) return;
    const before = this.#view;
    this.#view = view;
    for (const [host, now] of view.hosts) if (differs(before.hosts.get(host), now)) this.#hostChanged(host);
    for (const host of before.hosts.keys()) {
      if (view.hosts.has(host)) continue;
      this.#hostChanged(host);
      this.#replicas.forgetHost(host);
    }
  }

  /** What this host knows of the others itself, from probes and their news. Hosts that are left out are not known. */
  setPeers(peers: ReadonlyMap<HostId, PeerStatus>): void {
    for (const [host, now] of peers) {
      const before = this.#peers.get(host);
      if (before === now || host === this.#options.host) continue;
      this.#peers.set(host, now);
      this.#replicas.learnPeer(host, now);
      if (before === undefined || !isSameHealth(before, now)) this.#hostChanged(host);
    }
    // As many as are told: the same ones.
    if (this.#peers.size === peers.size - (peers.has(this.#options.host) ? 1 : 0)) return;
    for (const host of this.#peers.keys()) {
      if (peers.has(host)) continue;
      this.#peers.delete(host);
      this.#hostChanged(host);
    }
  }

  /** What a host says about its replicas and devices; undefined when it says nothing any more. */
  setActual(host: HostId, actual: HostActual | undefined): void {
    if (host === this.#options.host) {
      // The own host's catalogue says it sooner; only devices out of service are learned here.
      this.#setActual(host, actual);
      for (const model of this.#own.models.keys()) this.#changed.add(model);
      return;
    }
    for (const replica of this.#actuals.get(host)?.replicas ?? []) {
      const name = pieceModelName(replica);
      const slot = this.#models.get(name);
      const placed = slot?.versions.get(replica.version);
      placed?.delete(placeOf(host, replica.device));
      if (placed?.size === 0) slot?.versions.delete(replica.version);
      this.#changed.add(name);
    }
    this.#setActual(host, actual);
    for (const replica of actual?.replicas ?? []) {
      const name = pieceModelName(replica);
      const slot = this.#slot(name);
      let placed = slot.versions.get(replica.version);
      if (placed === undefined) {
        placed = new Map<string, ActualReplica & { readonly host: HostId }>();
        slot.versions.set(replica.version, placed);
      }
      placed.set(placeOf(host, replica.device), { ...replica, host });
      this.#changed.add(name);
    }
  }

  /** The facts under a fingerprint; undefined when they are gone. */
  setFacts(fingerprint: string, facts: ServedFacts | undefined): void {
    const known = this.#facts.get(fingerprint) ?? facts;
    if (facts === undefined) this.#facts.delete(fingerprint);
    else this.#facts.set(fingerprint, facts);
    if (known !== undefined) this.#changed.add(known.name);
  }

  /** The catalogue of the own host's registry. */
  setOwn(catalog: Catalog): void {
    const before = this.#own;
    this.#own = catalog;
    for (const [name, entry] of catalog.models) if (before.models.get(name) !== entry) this.#changed.add(name);
    for (const name of before.models.keys()) if (!catalog.models.has(name)) this.#changed.add(name);
  }

  /** The version that a deployment says is current; undefined for the highest served. Counts only while it is served. */
  setDefault(model: ModelName, version: ModelVersion | undefined): void {
    if (this.#defaults.get(model) === version) return;
    if (version === undefined) this.#defaults.delete(model);
    else this.#defaults.set(model, version);
    this.#changed.add(model);
  }

  /** What a deployment says of large requests; undefined for what the model's configuration says. */
  setStrategy(model: ModelName, strategy: SpreadStrategy | undefined): void {
    if (this.#strategies.get(model) === strategy) return;
    if (strategy === undefined) this.#strategies.delete(model);
    else this.#strategies.set(model, strategy);
    this.#changed.add(model);
  }

  /** A device of the own host became able or unable to take requests: holds at once, without another table. */
  setReady(device: DeviceId, ready: boolean): void {
    this.#replicas.setReady(placeOf(this.#options.host, device), ready);
  }

  /** The current table: the same object as before when nothing changed. */
  table(): GridRoutingTable {
    if (this.#changed.size === 0) return this.#table;
    this.#revision += 1;
    const models = new Map(this.#table.catalog.models);
    const candidates = new Map(this.#table.candidates);
    const reserve = new Map(this.#table.reserve);
    for (const name of this.#inOrder()) {
      const built = this.#build(name);
      if (built === undefined) {
        this.#built.delete(name);
        models.delete(name);
        candidates.delete(name);
        reserve.delete(name);
        continue;
      }
      if (readShardName(name) === undefined) models.set(name, built.entry);
      else this.#built.set(name, built);
      candidates.set(
        name,
        mapOf(built.parts, (parts) => parts.candidates),
      );
      reserve.set(
        name,
        mapOf(built.parts, (parts) => parts.reserve),
      );
    }
    this.#changed.clear();
    this.#replicas.sweep();
    const { picker } = this.#options;
    this.#table = { catalog: { revision: this.#revision, models }, candidates, reserve, picker };
    return this.#table;
  }

  /** What has changed: shards first, and after them the models that they are of. */
  #inOrder(): readonly ModelName[] {
    const wholes = new Set<ModelName>();
    const shards: ModelName[] = [];
    for (const name of this.#changed) {
      const shard = readShardName(name);
      wholes.add(shard?.model ?? name);
      if (shard === undefined) continue;
      shards.push(name);
      const known = this.#shards.get(shard.model);
      const isThere = this.#models.has(name) || this.#own.models.has(name);
      if (isThere && known === undefined) this.#shards.set(shard.model, new Set([name]));
      else if (isThere) known?.add(name);
      else known?.delete(name);
      if (known?.size === 0) this.#shards.delete(shard.model);
    }
    return [...shards, ...wholes];
  }

  #build(name: ModelName): BuiltModel | undefined {
    const slot = this.#models.get(name);
    const own = this.#own.models.get(name);
    if (slot?.versions.size === 0) this.#models.delete(name);
    const split = splitParts([...(this.#shards.get(name) ?? [])].sort(), this.#built);
    const versions = new Set<ModelVersion>([
      ...(own?.served.keys() ?? []),
      ...(slot?.versions.keys() ?? []),
      ...split.keys(),
    ]);
    if (own === undefined && versions.size === 0) {
      this.#replicas.keepOnly(name, new Set());
      const awaited = this.#defaults.get(name);
      return awaited === undefined ? undefined : { entry: awaitedEntry(name, awaited), parts: new Map() };
    }
    const parts = new Map<ModelVersion, VersionParts>();
    const kept = new Set<string>();
    for (const version of versions) {
      const made = versionParts({
        model: name,
        version,
        own: own?.served.get(version),
        replicas: this.#placed(name, version),
        factsOf: (fingerprint) => this.#facts.get(fingerprint),
        ownRank: (device) => this.#rank(this.#options.host, device),
        ownHost: this.#options.host,
        candidate: (digest, host, device) =>
          this.#replicas.candidate({ model: name, version, digest, host, device, speed: this.#speed(host, device) }),
      });
      parts.set(version, this.#withStrategy(name, withSplit(made, split.get(version))));
      for (const { replica } of [...made.candidates, ...made.reserve]) kept.add(replica.id);
    }
    this.#replicas.keepOnly(name, kept);
    return { entry: mergedEntry(name, own, parts, this.#defaults.get(name)), parts };
  }

  #withStrategy(name: ModelName, parts: VersionParts): VersionParts {
    const strategy = this.#strategies.get(name);
    return strategy === undefined || parts.served === undefined
      ? parts
      : { ...parts, served: { ...parts.served, strategy } };
  }

  #placed(name: ModelName, version: ModelVersion): PlacedReplica[] {
    const placed: PlacedReplica[] = [];
    for (const replica of this.#models.get(name)?.versions.get(version)?.values() ?? []) {
      const rank = this.#rank(replica.host, replica.device);
      if (rank !== undefined) placed.push({ ...replica, rank });
    }
    return placed;
  }

  /** How gladly a device gets requests: 0 gladly, then degraded, draining, suspected; undefined: not in the grid. */
  #rank(host: HostId, device: DeviceId): number | undefined {
    const member = this.#view.hosts.get(host);
    const isOwn = host === this.#options.host;
    if (member === undefined && !isOwn) return undefined;
    // Peers that suspect this host are wrong about its own devices.
    const peer = isOwn ? undefined : this.#peers.get(host);
    if ((member?.state === 'suspected' && !isOwn) || peer?.reachable === false) return 3;
    if (member?.state === 'draining') return 2;
    if (peer !== undefined && (peer.degraded !== '' || isDegraded(peer, device))) return 1;
    return this.#actuals.get(host)?.degraded[device] === undefined ? 0 : 1;
  }

  #speed(host: HostId, device: DeviceId): number {
    const known = this.#view.hosts.get(host)?.record.devices.find(({ id }) => id === device);
    return known === undefined || !(known.speed > 0) ? 1 : known.speed;
  }

  #setActual(host: HostId, actual: HostActual | undefined): void {
    if (actual === undefined) this.#actuals.delete(host);
    else this.#actuals.set(host, actual);
  }

  #hostChanged(host: HostId): void {
    if (host === this.#options.host) for (const model of this.#own.models.keys()) this.#changed.add(model);
    else for (const replica of this.#actuals.get(host)?.replicas ?? []) this.#changed.add(pieceModelName(replica));
  }

  #slot(model: ModelName): ModelSlot {
    let slot = this.#models.get(model);
    if (slot === undefined) this.#models.set(model, (slot = { versions: new Map() }));
    return slot;
  }
}

function placeOf(host: HostId, device: DeviceId): string {
  return `${host}/${device}`;
}

function isDegraded({ load }: PeerStatus, device: DeviceId): boolean {
  return load?.devices.some((each) => each.device === device && each.degraded !== '') === true;
}

/** Whether requests go where they went; load is read at each pick. */
function isSameHealth(before: PeerStatus, now: PeerStatus): boolean {
  if (before.reachable !== now.reachable || (before.degraded === '') !== (now.degraded === '')) return false;
  if (before.load === now.load) return true;
  const then = before.load?.devices ?? [];
  const devices = now.load?.devices ?? [];
  // Each of every host's news comes by here.
  for (let index = 0; index < devices.length; index += 1) {
    const [known, device] = [then[index], devices[index]];
    if (known?.device !== device?.device || (known?.degraded === '') !== (device?.degraded === '')) return false;
  }
  return then.length === devices.length;
}

function differs(before: ViewHost | undefined, now: ViewHost): boolean {
  return before === undefined || before.state !== now.state || before.generation !== now.generation;
}

function mapOf<Key, From, To>(map: ReadonlyMap<Key, From>, change: (value: From) => To): ReadonlyMap<Key, To> {
  return new Map([...map].map(([key, value]) => [key, change(value)]));
}
