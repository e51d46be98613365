/**
 * What the host agent decides: news in, effects out. It knows no store, no files, no registry.
 *
 * A replica that is assigned gets its files, is loaded, and is ready when the catalogue says so. One that is no longer
 * assigned is first told to leave, so that gateways route elsewhere, and unloaded after. A model of the host's own
 * repository that a deployment rules serves on until what was assigned instead is ready, or until it is withdrawn.
 * No word is no order: an assignment that is gone, or made for another incarnation, changes nothing.
 */
import type { Catalog } from '#core/catalog.js';
import type { IntarsiaError } from '#core/errors.js';
import type { AssignedReplica, Edition, Generation, HostAssignment } from '#core/grid/records.js';
import { editionText } from '#core/grid/rollout.js';
import type { ArtifactDigest, DeviceId, ModelName, ModelVersion } from '#core/ids.js';
import { pieceModelName, readShardName, type SplitSpec } from '#core/split/split-spec.js';
import type { ImposeOutcome } from '#actors/model-registry/protocol.js';
import type { AgentReplica } from './protocol.js';

export type ImposedVersions = ReadonlyMap<ModelVersion, readonly DeviceId[]>;
/** Names of variants, empty for the exact model, where the leader has chosen. */
export type ImposedForms = ReadonlyMap<ModelVersion, ReadonlyMap<DeviceId, string>>;

/** Where a model is to be. */
interface Target {
  readonly versions: ImposedVersions;
  readonly forms: ImposedForms;
}

export type AgentEffect =
  | { readonly type: 'fetch'; readonly edition: Edition }
  /** Its files are not needed any more. */
  | { readonly type: 'release'; readonly edition: Edition }
  /** `splits`: those of which shards are wanted here, by id. */
  | {
      readonly type: 'rule';
      readonly models: ReadonlySet<ModelName>;
      readonly splits: ReadonlyMap<string, SplitSpec>;
    }
  | {
      readonly type: 'impose';
      readonly model: ModelName;
      readonly versions: ImposedVersions | undefined;
      readonly forms: ImposedForms;
    };

interface Slot {
  /** As the registry and the devices know it: a shard has a name of its own. */
  readonly model: ModelName;
  /** The model as clients know it: of a shard, what it is a shard of. */
  readonly whole: ModelName;
  readonly shard: { readonly split: SplitSpec; readonly index: number } | undefined;
  readonly version: ModelVersion;
  readonly device: DeviceId;
  deployment: string;
  /** Name of the variant that the device is to have, empty for the exact model; undefined: the host chooses. */
  form: string | undefined;
  phase: 'fetching' | 'loading' | 'ready' | 'failed' | 'leaving';
  reason: string;
  attempts: number;
  /** When a failed one is tried again, and when a leaving one is unloaded, ms. */
  dueMs: number;
}

interface Files {
  state: 'fetching' | 'held' | 'failed';
  digest: ArtifactDigest | '';
  reason: string;
  attempts: number;
  dueMs: number;
}

interface RuledModel {
  /** What the registry was last asked for and has answered well; undefined: nothing, or it failed. */
  settled: string | undefined;
  /** What it is being asked for. */
  asking: Target | undefined;
  isAsking: boolean;
  /** The registry did not even try: asked again then, ms. */
  attempts: number;
  dueMs: number;
}

export interface AgentBehaviorOptions {
  readonly routeAwayMs: number;
  readonly retryMsMin: number;
  readonly retryMsMax: number;
}

export class AgentBehavior {
  readonly #options: AgentBehaviorOptions;
  readonly #slots = new Map<string, Slot>();
  readonly #files = new Map<string, Files>();
  readonly #models = new Map<ModelName, RuledModel>();
  #catalog: Catalog;
  #withdrawn: ReadonlySet<ModelName> = new Set();
  #effects: AgentEffect[] = [];
  #ruled = '';

  constructor(options: AgentBehaviorOptions, catalog: Catalog) {
    this.#options = options;
    this.#catalog = catalog;
  }

  /** What is assigned, if it is meant for this incarnation. */
  assigned(assignment: HostAssignment, generation: Generation, nowMs: number): readonly AgentEffect[] {
    if (assignment.generation !== generation) return [];
    const wanted = new Map<string, AssignedReplica>();
    for (const replica of assignment.replicas) {
      wanted.set(slotKey({ ...replica, model: pieceModelName(replica) }), replica);
    }
    this.#withdrawn = new Set(assignment.withdrawn);
    for (const [key, replica] of wanted) this.#want(key, replica);
    for (const [key, slot] of this.#slots) if (!wanted.has(key)) this.#leave(slot, nowMs);
    return this.step(nowMs);
  }

  /** At the start, and after a restart of the actor: nobody will answer what was asked before. */
  recover(nowMs: number): readonly AgentEffect[] {
    for (const files of this.#files.values()) {
      if (files.state !== 'fetching') continue;
      files.state = 'failed';
      files.dueMs = nowMs;
    }
    for (const ruled of this.#models.values()) {
      if (ruled.isAsking) ruled.settled = undefined;
      ruled.isAsking = false;
    }
    return this.step(nowMs);
  }

  catalog(catalog: Catalog, nowMs: number): readonly AgentEffect[] {
    this.#catalog = catalog;
    return this.step(nowMs);
  }

  fetched(edition: Edition, digest: ArtifactDigest, nowMs: number): readonly AgentEffect[] {
    const files = this.#files.get(editionText(edition));
    if (files === undefined) return [{ type: 'release', edition }];
    files.state = 'held';
    files.digest = digest;
    files.attempts = 0;
    return this.step(nowMs);
  }

  fetchFailed(edition: Edition, error: IntarsiaError, nowMs: number): readonly AgentEffect[] {
    const files = this.#files.get(editionText(edition));
    if (files === undefined) return [];
    files.state = 'failed';
    files.reason = `its files cannot be had: ${error.message}`;
    files.attempts += 1;
    files.dueMs = nowMs + this.#retryMs(files.attempts);
    return this.step(nowMs);
  }

  imposed(model: ModelName, outcome: ImposeOutcome, nowMs: number): readonly AgentEffect[] {
    const ruled = this.#models.get(model);
    if (ruled === undefined) return [];
    const asked = ruled.asking;
    ruled.isAsking = false;
    ruled.asking = undefined;
    ruled.settled = outcome.error === undefined ? signature(asked) : undefined;
    ruled.attempts = outcome.error === undefined ? 0 : ruled.attempts + 1;
    ruled.dueMs = outcome.error === undefined ? 0 : nowMs + this.#retryMs(ruled.attempts);
    for (const [key, slot] of this.#slots) {
      if (slot.model !== model) continue;
      const isAsked = asked?.versions.get(slot.version)?.includes(slot.device) === true;
      if (slot.phase === 'leaving' && !isAsked && outcome.error === undefined) this.#slots.delete(key);
      if (slot.phase !== 'loading' || !isAsked) continue;
      const failure = outcome.failures.find(
        ({ version, device }) => version === slot.version && (device === undefined || device === slot.device),
      );
      const error = failure?.error ?? outcome.error;
      if (error !== undefined && !this.#isServed(slot)) this.#fail(slot, error.message, nowMs);
    }
    return this.step(nowMs);
  }

  /** When time alone makes a step worth while, ms; Infinity: never. */
  dueMs(): number {
    let dueMs = Infinity;
    for (const slot of this.#slots.values()) {
      if (slot.phase === 'failed' || slot.phase === 'leaving') dueMs = Math.min(dueMs, slot.dueMs);
    }
    for (const files of this.#files.values()) if (files.state === 'failed') dueMs = Math.min(dueMs, files.dueMs);
    for (const ruled of this.#models.values()) {
      if (ruled.settled === undefined && !ruled.isAsking) dueMs = Math.min(dueMs, ruled.dueMs);
    }
    return dueMs;
  }

  /** Goes on as far as is possible now. */
  step(nowMs: number): readonly AgentEffect[] {
    this.#effects = [];
    this.#followFiles(nowMs);
    for (const slot of this.#slots.values()) this.#advance(slot, nowMs);
    this.#replaceOwn(nowMs);
    const ruled = this.#ruledModels();
    const names = [...ruled].sort().join(' ');
    if (names !== this.#ruled) {
      this.#ruled = names;
      const splits = new Map<string, SplitSpec>();
      for (const { shard } of this.#slots.values()) if (shard !== undefined) splits.set(shard.split.id, shard.split);
      this.#effects.push({ type: 'rule', models: ruled, splits });
    }
    for (const model of new Set([...ruled, ...this.#models.keys()])) this.#impose(model, ruled, nowMs);
    this.#releaseFiles();
    return this.#effects;
  }

  /** What deployments have here, and what the host serves of its own. */
  replicas(): readonly AgentReplica[] {
    const shown: AgentReplica[] = [];
    for (const { deployment, whole, shard, version, device, phase, reason } of this.#slots.values()) {
      const state = phase === 'leaving' ? 'unloading' : phase;
      const part = shard === undefined ? {} : { split: shard.split.id, shard: shard.index };
      shown.push({ deployment, model: whole, version, device, state, reason, ...part });
    }
    for (const { model, version, device } of this.#served()) {
      if (this.#slots.has(slotKey({ model, version, device })) || readShardName(model) !== undefined) continue;
      shown.push({ deployment: '', model, version, device, state: 'ready', reason: '' });
    }
    return shown;
  }

  ruled(): readonly ModelName[] {
    return [...this.#ruledModels()].sort();
  }

  #want(key: string, replica: AssignedReplica): void {
    const { model: whole, version, device, deployment, split, shard: index } = replica;
    const form = replica.form?.variant;
    const slot = this.#slots.get(key);
    if (slot === undefined) {
      const model = pieceModelName(replica);
      const shard = split === undefined ? undefined : { split, index };
      const state = { deployment, form, phase: 'fetching', reason: '', attempts: 0, dueMs: 0 } as const;
      this.#slots.set(key, { model, whole, shard, version, device, ...state });
      return;
    }
    slot.deployment = deployment;
    slot.form = form;
    if (slot.phase === 'leaving') slot.phase = 'fetching';
  }

  #leave(slot: Slot, nowMs: number): void {
    if (slot.phase === 'leaving') return;
    slot.dueMs = slot.phase === 'ready' ? nowMs + this.#options.routeAwayMs : nowMs;
    slot.phase = 'leaving';
    slot.reason = '';
  }

  #followFiles(nowMs: number): void {
    for (const slot of this.#slots.values()) {
      if (slot.deployment === '' || slot.phase === 'leaving') continue;
      const text = filesText(slot);
      const files = this.#files.get(text);
      if (files !== undefined && !(files.state === 'failed' && nowMs >= files.dueMs)) continue;
      if (files === undefined) {
        this.#files.set(text, { state: 'fetching', digest: '', reason: '', attempts: 0, dueMs: 0 });
      } else files.state = 'fetching';
      this.#effects.push({ type: 'fetch', edition: { model: slot.whole, version: slot.version } });
    }
  }

  #advance(slot: Slot, nowMs: number): void {
    const files = this.#files.get(filesText(slot));
    switch (slot.phase) {
      case 'fetching':
      case 'loading':
        if (files?.state === 'failed') {
          slot.phase = 'failed';
          slot.reason = files.reason;
          slot.dueMs = files.dueMs;
        } else if (files?.state === 'held') {
          slot.phase = this.#isServed(slot, files.digest) ? 'ready' : 'loading';
          if (slot.phase === 'ready') slot.attempts = 0;
          slot.reason = '';
        }
        return;
      case 'ready':
        if (!this.#isServed(slot)) this.#fail(slot, this.#whyNotServed(slot), nowMs);
        return;
      case 'failed':
        if (nowMs < slot.dueMs) return;
        slot.phase = 'fetching';
        this.#forget(slot.model);
        this.#advance(slot, nowMs);
        return;
      case 'leaving':
    }
  }

  /** What the host served of its own leaves once what is assigned instead is ready, or it was withdrawn. */
  #replaceOwn(nowMs: number): void {
    for (const { model, version, device } of this.#served()) {
      const key = slotKey({ model, version, device });
      // What a shard's copy comes to is decided on several hosts: only the controller's word withdraws the whole model.
      if (this.#slots.has(key) || readShardName(model) !== undefined) continue;
      const slots = [...this.#slots.values()].filter((slot) => slot.model === model && slot.deployment !== '');
      const assigned = slots.filter(({ phase }) => phase !== 'leaving');
      const isReplaced = assigned.length > 0 && assigned.every(({ phase }) => phase === 'ready');
      if (!isReplaced && !this.#withdrawn.has(model)) continue;
      const dueMs = nowMs + this.#options.routeAwayMs;
      this.#slots.set(key, {
        model,
        whole: model,
        shard: undefined,
        version,
        device,
        deployment: '',
        form: undefined,
        phase: 'leaving',
        reason: '',
        attempts: 0,
        dueMs,
      });
    }
  }

  /** Models with something assigned that is past its fetching, or with something that leaves, or withdrawn. */
  #ruledModels(): ReadonlySet<ModelName> {
    const models = new Set(this.#withdrawn);
    for (const { model, whole, phase } of this.#slots.values()) {
      if (phase === 'fetching') continue;
      models.add(model);
      // Its files are here for the sake of its shards: nobody is to serve it whole because of that.
      models.add(whole);
    }
    for (const model of this.#models.keys()) {
      for (const slot of this.#slots.values()) if (slot.model === model || slot.whole === model) models.add(model);
    }
    return models;
  }

  #impose(model: ModelName, ruledModels: ReadonlySet<ModelName>, nowMs: number): void {
    let ruled = this.#models.get(model);
    if (ruled?.isAsking === true || nowMs < (ruled?.dueMs ?? 0)) return;
    const target = ruledModels.has(model) ? this.#target(model, nowMs) : undefined;
    if (ruled === undefined) {
      ruled = { settled: undefined, asking: undefined, isAsking: false, attempts: 0, dueMs: 0 };
      this.#models.set(model, ruled);
    }
    if (ruled.settled === signature(target)) {
      if (target === undefined) this.#models.delete(model);
      else this.#dropGone(model, nowMs);
      return;
    }
    ruled.isAsking = true;
    ruled.asking = target;
    const forms: ImposedForms = target?.forms ?? new Map();
    this.#effects.push({ type: 'impose', model, versions: target?.versions, forms });
  }

  /** What leaves and is not loaded, or has been unloaded, is over. */
  #dropGone(model: ModelName, nowMs: number): void {
    for (const [key, slot] of this.#slots) {
      if (slot.model !== model || slot.phase !== 'leaving') continue;
      if (nowMs >= slot.dueMs || !this.#isServed(slot)) this.#slots.delete(key);
    }
  }

  /** Where the versions of a model are to be now; devices in a fixed order. */
  #target(model: ModelName, nowMs: number): Target {
    const places: { readonly version: ModelVersion; readonly device: DeviceId; readonly form?: string | undefined }[] =
      [];
    for (const slot of this.#slots.values()) {
      if (slot.model !== model || slot.phase === 'fetching') continue;
      // What waits for another try is asked for again when its time has come.
      if (slot.phase === 'failed') continue;
      if (slot.phase === 'leaving' && nowMs >= slot.dueMs) continue;
      if (slot.phase === 'leaving' && !this.#isServed(slot)) continue;
      places.push(slot);
    }
    for (const served of this.#served()) {
      if (served.model === model && !this.#slots.has(slotKey(served))) places.push(served);
    }
    const versions = new Map<ModelVersion, DeviceId[]>();
    const forms = new Map<ModelVersion, Map<DeviceId, string>>();
    for (const { version, device, form } of places.sort(byPlace)) {
      const devices = versions.get(version);
      if (devices === undefined) versions.set(version, [device]);
      else devices.push(device);
      if (form !== undefined) forms.set(version, (forms.get(version) ?? new Map<DeviceId, string>()).set(device, form));
    }
    return { versions, forms };
  }

  #forget(model: ModelName): void {
    const ruled = this.#models.get(model);
    if (ruled !== undefined) ruled.settled = undefined;
  }

  #fail(slot: Slot, reason: string, nowMs: number): void {
    slot.phase = 'failed';
    slot.reason = reason;
    slot.attempts += 1;
    slot.dueMs = nowMs + this.#retryMs(slot.attempts);
  }

  #retryMs(attempts: number): number {
    const { retryMsMin, retryMsMax } = this.#options;
    return Math.min(retryMsMax, retryMsMin * 2 ** Math.min(attempts - 1, 20));
  }

  #releaseFiles(): void {
    const used = new Set<string>();
    for (const slot of this.#slots.values()) used.add(filesText(slot));
    for (const [text, { state }] of this.#files) {
      if (used.has(text) || state === 'fetching') continue;
      const [model, version] = [text.slice(0, text.lastIndexOf('/')), text.slice(text.lastIndexOf('/') + 1)];
      this.#files.delete(text);
      const edition = { model: model as ModelName, version: version as ModelVersion };
      if (state === 'held') this.#effects.push({ type: 'release', edition });
    }
  }

  *#served(): Iterable<{ readonly model: ModelName; readonly version: ModelVersion; readonly device: DeviceId }> {
    for (const [model, { served }] of this.#catalog.models) {
      for (const [version, { devices }] of served) for (const device of devices) yield { model, version, device };
    }
  }

  /** @param digest Of the files it was assigned with; empty: any. */
  #isServed({ model, version, device }: Slot, digest: ArtifactDigest | '' = ''): boolean {
    const served = this.#catalog.models.get(model)?.served.get(version);
    const made = served?.part?.whole.digest ?? served?.digest;
    return served?.devices.includes(device) === true && (digest === '' || made === digest);
  }

  #whyNotServed({ model, version, device }: Slot): string {
    const status = this.#catalog.models.get(model)?.versions.find((one) => one.version === version);
    return status === undefined || status.reason === '' ? `${device} does not have it any more` : status.reason;
  }
}

/** Whose files it is made from. */
function filesText({ whole, version }: Slot): string {
  return editionText({ model: whole, version });
}

function slotKey({ model, version, device }: { model: ModelName; version: ModelVersion; device: DeviceId }): string {
  return `${model}/${version}@${device}`;
}

function signature(target: Target | undefined): string {
  if (target === undefined) return 'own';
  return JSON.stringify([[...target.versions], [...target.forms].map(([version, forms]) => [version, ...forms])]);
}

function byPlace(
  one: { readonly version: ModelVersion; readonly device: DeviceId },
  other: { readonly version: ModelVersion; readonly device: DeviceId },
): number {
  return (
    Number(one.version) - Number(other.version) || (one.device < other.device ? -1 : Number(one.device > other.device))
  );
}
