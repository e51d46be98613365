/**
 * What the registry decides: events in, effects out. It knows no clock, no files and no devices.
 *
 * One operation a model at a time, models beside each other. A version that is reloaded keeps serving until its successor
 * is ready on a device; the catalogue is switched first, what it no longer names is unloaded after. What fails leaves
 * what served before.
 */
import type { Catalog } from '#core/catalog.js';
import { intarsiaError, type IntarsiaError } from '#core/errors.js';
import { modelName, type DeviceId, type ModelName, type ModelVersion } from '#core/ids.js';
import type { ModelListing, RepositoryListing } from '#ports/model-files.js';
import type { ReplyTo } from '#runtime/actor.js';
import { ModelEntry } from './model-entry.js';
import type { LoadedVersion, ModelRequest, Operation, PendingScan, VersionEntry } from './model-entry.js';
import type { ImposedDevices, PlacementResult } from './place-version.js';
import type { PreparedModel, PreparedVersion } from './prepare-model.js';
import type { ImposeOutcome, LoadOverrides, ModelRegistryMessage, RegistryOutcome } from './protocol.js';

export type RegistryEvent =
  | Exclude<ModelRegistryMessage, { readonly type: 'lend' }>
  /** The time between two looks has passed. */
  | { readonly type: 'poll' }
  | { readonly type: 'listed'; readonly listing: RepositoryListing }
  | { readonly type: 'list-failed'; readonly error: IntarsiaError }
  | {
      readonly type: 'prepared';
      readonly model: ModelName;
      readonly operation: number;
      readonly prepared: PreparedModel;
    }
  | {
      readonly type: 'prepare-failed';
      readonly model: ModelName;
      readonly operation: number;
      readonly error: IntarsiaError;
    }
  | {
      readonly type: 'placed';
      readonly model: ModelName;
      readonly operation: number;
      readonly prepared: PreparedVersion;
      readonly result: PlacementResult;
    }
  | { readonly type: 'removed'; readonly model: ModelName; readonly operation: number }
  | { readonly type: 'device-gone'; readonly device: DeviceId };

/** A version to be taken off devices. */
export interface Removal {
  readonly model: ModelName;
  readonly version: ModelVersion;
  readonly devices: readonly DeviceId[];
}

export type RegistryEffect =
  | { readonly type: 'publish'; readonly catalog: Catalog }
  | { readonly type: 'list' }
  | { readonly type: 'poll-later' }
  | {
      readonly type: 'prepare';
      readonly model: ModelName;
      readonly operation: number;
      readonly overrides: LoadOverrides;
      /** Versions to prepare; undefined: the configuration decides. */
      readonly imposed?: readonly ModelVersion[];
    }
  | {
      readonly type: 'place';
      readonly operation: number;
      readonly prepared: PreparedVersion;
      readonly previous: readonly DeviceId[];
      readonly imposed?: ImposedDevices;
    }
  | {
      readonly type: 'remove';
      readonly model: ModelName;
      readonly operation: number;
      readonly removals: readonly Removal[];
    }
  /** `replaced`: something may still need the files for a while. */
  | { readonly type: 'release'; readonly version: { release(): Promise<void> }; readonly replaced: boolean }
  | { readonly type: 'reply'; readonly to: ReplyTo<RegistryOutcome>; readonly outcome: RegistryOutcome }
  | { readonly type: 'reply-imposed'; readonly to: ReplyTo<ImposeOutcome>; readonly outcome: ImposeOutcome }
  | { readonly type: 'tell-catalog'; readonly to: ReplyTo<Catalog>; readonly catalog: Catalog }
  | { readonly type: 'log'; readonly level: 'info' | 'warn'; readonly message: string; readonly model?: ModelName };

export interface BehaviorOptions {
  readonly mode: 'none' | 'poll' | 'explicit';
  readonly startupModels: readonly string[];
  readonly waitingMax: number;
}

const noOverrides: LoadOverrides = { files: new Map() };

export class RegistryBehavior {
  readonly #options: BehaviorOptions;
  readonly #models = new Map<ModelName, ModelEntry>();
  #catalog: Catalog = { revision: 0, models: new Map() };
  #effects: RegistryEffect[] = [];
  #changed = false;
  #operations = 0;
  #isScanning = false;
  #hasScanned = false;
  #scanWaiters: ReplyTo<RegistryOutcome>[] = [];

  constructor(options: BehaviorOptions) {
    this.#options = options;
  }

  /** What to do about an event, in order. A new catalogue always comes first. */
  handle(event: RegistryEvent): readonly RegistryEffect[] {
    this.#effects = [];
    this.#decide(event);
    if (!this.#changed) return this.#effects;
    this.#changed = false;
    const models = new Map([...this.#models].map(([name, entry]) => [name, entry.view()]));
    this.#catalog = { revision: this.#catalog.revision + 1, models };
    return [{ type: 'publish', catalog: this.#catalog }, ...this.#effects];
  }

  /**
   * After a failure of the actor: what was under way will never end. Its callers are told, and the next look tries again.
   * What devices have is still there.
   */
  recover(): readonly RegistryEffect[] {
    this.#effects = [];
    const error = intarsiaError('UNAVAILABLE', 'the model registry was restarted; ask again');
    for (const entry of this.#models.values()) {
      const requests = [...(entry.running === undefined ? [] : [entry.running.request]), ...entry.waiting.splice(0)];
      entry.running = undefined;
      entry.tried = '';
      for (const request of requests) this.#answer(request, { ok: false, error });
      for (const version of entry.versions.values()) {
        if (version.state !== 'LOADING' && version.state !== 'UNLOADING') continue;
        version.state = version.loaded === undefined ? 'UNAVAILABLE' : 'READY';
        version.reason = version.loaded === undefined ? error.message : '';
      }
    }
    for (const to of this.#scanWaiters.splice(0))
      this.#effects.push({ type: 'reply', to, outcome: { ok: false, error } });
    this.#isScanning = false;
    if (this.#options.mode === 'poll') this.#effects.push({ type: 'poll-later' });
    return this.#effects;
  }

  #decide(event: RegistryEvent): void {
    switch (event.type) {
      case 'load':
      case 'unload':
        this.#ask(event);
        return;
      case 'impose':
        this.#impose(event);
        return;
      case 'scan':
        this.#scan(event.replyTo);
        return;
      case 'catalog':
        this.#effects.push({ type: 'tell-catalog', to: event.replyTo, catalog: this.#catalog });
        return;
      case 'poll':
        this.#look();
        return;
      case 'listed':
        this.#listed(event.listing);
        return;
      case 'list-failed':
        this.#listFailed(event.error);
        return;
      case 'device-gone':
        this.#deviceGone(event.device);
        return;
      case 'version-out':
        this.#versionOut(event);
        return;
      case 'prepared':
      case 'prepare-failed':
      case 'placed':
      case 'removed':
        this.#progress(event);
    }
  }

  // What operators ask for

  #ask(message: Extract<ModelRegistryMessage, { type: 'load' | 'unload' }>): void {
    const { type, replyTo } = message;
    const refuse = (error: IntarsiaError): void => {
      this.#effects.push({ type: 'reply', to: replyTo, outcome: { ok: false, error } });
    };
    if (this.#options.mode !== 'explicit') {
      const { mode } = this.#options;
      refuse(
        intarsiaError(
          'FAILED_PRECONDITION',
          `models are ${type}ed by request only in model control mode explicit; it is ${mode}`,
          { mode },
        ),
      );
      return;
    }
    let name: ModelName;
    try {
      name = modelName(message.model);
    } catch {
      refuse(unknownModel(message.model));
      return;
    }
    const known = this.#models.get(name);
    if (type === 'unload' && known === undefined) {
      refuse(unknownModel(message.model));
      return;
    }
    if (known?.imposed !== undefined) {
      refuse(
        intarsiaError(
          'FAILED_PRECONDITION',
          `model ${JSON.stringify(name)} is placed by a deployment of the grid; it cannot be ${type}ed by request`,
          { model: name },
        ),
      );
      return;
    }
    const overrides = type === 'load' ? message.overrides : noOverrides;
    this.#enqueue(known ?? this.#entry(name), { kind: type, overrides, replyTo, scan: undefined });
  }

  #impose({ model, versions, forms, replyTo }: Extract<ModelRegistryMessage, { type: 'impose' }>): void {
    const entry = this.#entry(model);
    const impose = { replyTo, failures: [] };
    entry.imposed = versions;
    entry.imposedForms = forms;
    const isGivenBack = versions === undefined;
    const kind = isGivenBack ? 'restore' : versions.size === 0 ? 'unload' : 'load';
    this.#enqueue(entry, { kind, overrides: noOverrides, replyTo: undefined, scan: undefined, impose });
  }

  /** Whether the registry loads a model of the repository by itself. */
  #isOwn(name: ModelName, isFirst: boolean): boolean {
    const { mode, startupModels } = this.#options;
    return mode !== 'explicit' || (isFirst && (startupModels.includes('*') || startupModels.includes(name)));
  }

  #enqueue(entry: ModelEntry, request: ModelRequest): void {
    if (entry.running === undefined) {
      this.#start(entry, request);
      return;
    }
    const { waitingMax } = this.#options;
    if (entry.waiting.length >= waitingMax) {
      const error = intarsiaError(
        'RESOURCE_EXHAUSTED',
        `${entry.waiting.length} requests for model ${JSON.stringify(entry.name)} wait already; the limit is ${waitingMax}`,
        { model: entry.name, limit: waitingMax },
      );
      entry.tried = '';
      this.#answer(request, { ok: false, error });
      return;
    }
    entry.waiting.push(request);
  }

  // Looking at the repository

  #scan(replyTo: ReplyTo<RegistryOutcome>): void {
    if (this.#options.mode === 'none' && this.#hasScanned && !this.#isScanning) {
      this.#effects.push({ type: 'reply', to: replyTo, outcome: { ok: true } });
      return;
    }
    if (this.#scanWaiters.length >= this.#options.waitingMax) {
      const limit = this.#options.waitingMax;
      const error = intarsiaError(
        'RESOURCE_EXHAUSTED',
        `${limit} callers wait for a scan already; the limit is ${limit}`,
        {
          limit,
        },
      );
      this.#effects.push({ type: 'reply', to: replyTo, outcome: { ok: false, error } });
      return;
    }
    this.#scanWaiters.push(replyTo);
    this.#look();
  }

  #look(): void {
    if (this.#isScanning) return;
    this.#isScanning = true;
    this.#effects.push({ type: 'list' });
  }

  #listFailed(error: IntarsiaError): void {
    this.#isScanning = false;
    this.#log('warn', `the model repository cannot be read: ${error.message}`);
    for (const to of this.#scanWaiters.splice(0))
      this.#effects.push({ type: 'reply', to, outcome: { ok: false, error } });
    if (this.#options.mode === 'poll') this.#effects.push({ type: 'poll-later' });
  }

  #listed({ models, notes }: RepositoryListing): void {
    const isFirst = !this.#hasScanned;
    this.#isScanning = false;
    this.#hasScanned = true;
    for (const note of isFirst ? notes : []) this.#log('warn', note);
    const scan: PendingScan = { replies: this.#scanWaiters.splice(0), open: 1 };
    const seen = new Set<ModelName>();
    for (const listing of models) {
      seen.add(listing.name);
      this.#found(this.#entry(listing.name), listing, isFirst, scan);
    }
    for (const entry of [...this.#models.values()]) {
      if (entry.listing !== undefined && !seen.has(entry.name)) this.#vanished(entry, scan);
    }
    if (isFirst && this.#options.mode === 'explicit') {
      for (const name of this.#options.startupModels) {
        if (name !== '*' && !seen.has(name as ModelName)) this.#log('warn', unknownModel(name).message);
      }
    }
    this.#scanStep(scan);
    if (this.#options.mode === 'poll') this.#effects.push({ type: 'poll-later' });
  }

  #found(entry: ModelEntry, listing: ModelListing, isFirst: boolean, scan: PendingScan): void {
    entry.listing = listing;
    // What is imposed is loaded when it is imposed; a change of its files is followed as in any mode.
    if (entry.imposed?.size === 0 || (entry.imposed !== undefined && this.#options.mode !== 'poll')) return;
    if (!this.#isOwn(entry.name, isFirst)) {
      if (entry.running === undefined) this.#showListing(entry, 'not loaded');
      return;
    }
    if (entry.tried === listing.fingerprint) return;
    entry.tried = listing.fingerprint;
    if (listing.problem !== '' && entry.running === undefined) {
      this.#showListing(entry, '');
      this.#fail(entry, intarsiaError('MODEL_INVALID', listing.problem, { model: entry.name }));
      return;
    }
    scan.open += 1;
    this.#enqueue(entry, { kind: 'load', overrides: noOverrides, replyTo: undefined, scan });
  }

  #vanished(entry: ModelEntry, scan: PendingScan): void {
    entry.listing = undefined;
    entry.tried = '';
    if (entry.imposed !== undefined) return;
    if (this.#options.mode === 'explicit') {
      // What was loaded by request goes by request.
      if (entry.running === undefined) this.#tidy(entry);
      return;
    }
    scan.open += 1;
    this.#enqueue(entry, { kind: 'forget', overrides: noOverrides, replyTo: undefined, scan });
  }

  /** The versions that the repository has, beside those that are loaded. */
  #showListing(entry: ModelEntry, reason: string): void {
    const listed = new Set(entry.listing?.versions ?? []);
    for (const [version, { loaded }] of [...entry.versions]) {
      if (loaded === undefined && !listed.has(version)) {
        entry.versions.delete(version);
        this.#changed = true;
      }
    }
    for (const version of listed) {
      if (entry.versions.has(version)) continue;
      entry.version(version).reason = reason;
      this.#changed = true;
    }
  }

  #scanStep(scan: PendingScan): void {
    scan.open -= 1;
    if (scan.open > 0) return;
    for (const to of scan.replies) this.#effects.push({ type: 'reply', to, outcome: { ok: true } });
  }

  // One operation

  #start(entry: ModelEntry, request: ModelRequest): void {
    this.#operations += 1;
    const operation: Operation = {
      id: this.#operations,
      request,
      imposed: entry.imposed,
      forms: entry.imposedForms,
      selected: undefined,
      placing: new Set(),
      errors: new Map(),
      removing: false,
    };
    entry.running = operation;
    this.#changed = true;
    const isRestored = request.kind === 'restore' && operation.imposed === undefined && this.#isOwn(entry.name, true);
    const isLoad = (request.kind === 'load' || isRestored) && operation.imposed?.size !== 0;
    if (isLoad) {
      if (request.overrides.files.size === 0) this.#showListing(entry, '');
      entry.markUnloaded('LOADING', '');
      const { name: model } = entry;
      const imposed = operation.imposed === undefined ? {} : { imposed: ascending(operation.imposed.keys()) };
      this.#effects.push({ type: 'prepare', model, operation: operation.id, overrides: request.overrides, ...imposed });
      return;
    }
    const removals = this.#retire(entry, () => true);
    if (removals.length === 0) this.#unloaded(entry);
    else this.#remove(entry, operation, removals);
  }

  #progress(event: Extract<RegistryEvent, { readonly operation: number }>): void {
    const entry = this.#models.get(event.model);
    const operation = entry?.running;
    if (entry === undefined || operation?.id !== event.operation) {
      // An operation of before a restart: what it brought is not wanted any more.
      if (event.type === 'placed') this.#effects.push({ type: 'release', version: event.prepared, replaced: false });
      if (event.type === 'prepared') {
        for (const outcome of event.prepared.versions) {
          if (outcome.ok) this.#effects.push({ type: 'release', version: outcome.prepared, replaced: false });
        }
      }
      return;
    }
    switch (event.type) {
      case 'prepared':
        this.#prepared(entry, operation, event.prepared);
        return;
      case 'prepare-failed':
        if (operation.request.kind === 'restore' && event.error.code === 'MODEL_NOT_FOUND') {
          // It was here for the grid's sake only.
          const removals = this.#retire(entry, () => true);
          if (removals.length === 0) this.#unloaded(entry);
          else this.#remove(entry, operation, removals);
          return;
        }
        for (const version of operation.imposed?.keys() ?? []) {
          operation.request.impose?.failures.push({ version, device: undefined, error: event.error });
        }
        this.#fail(entry, event.error);
        this.#answer(operation.request, { ok: false, error: event.error });
        this.#end(entry);
        return;
      case 'placed':
        this.#placed(entry, operation, event.prepared, event.result);
        return;
      case 'removed':
        this.#removed(entry, operation);
    }
  }

  #prepared(entry: ModelEntry, operation: Operation, { versions, notes }: PreparedModel): void {
    for (const note of notes) this.#log('info', note, entry.name);
    const selected = new Set(versions.map((outcome) => (outcome.ok ? outcome.prepared.version : outcome.version)));
    operation.selected = selected;
    for (const [version, { loaded }] of [...entry.versions]) {
      if (loaded === undefined && !selected.has(version)) entry.versions.delete(version);
    }
    this.#changed = true;
    for (const outcome of versions) {
      if (!outcome.ok) {
        operation.errors.set(outcome.version, outcome.error);
        operation.request.impose?.failures.push({ version: outcome.version, device: undefined, error: outcome.error });
        this.#failVersion(entry, outcome.version, outcome.error);
        continue;
      }
      const { prepared } = outcome;
      const version = entry.version(prepared.version);
      const imposed = imposedDevices(operation, version, prepared);
      const isThere = version.loaded?.identity === prepared.identity && version.state === 'READY';
      if (isThere && (imposed === undefined || isKept(imposed, version.loaded?.served.devices ?? []))) {
        version.reason = '';
        this.#effects.push({ type: 'release', version: prepared, replaced: false });
        continue;
      }
      if (version.loaded === undefined) version.state = 'LOADING';
      operation.placing.add(prepared.version);
      const previous = version.loaded?.served.devices ?? [];
      const devices = imposed === undefined ? {} : { imposed };
      this.#effects.push({ type: 'place', operation: operation.id, prepared, previous, ...devices });
    }
    if (operation.placing.size === 0) this.#conclude(entry, operation, []);
  }

  #placed(entry: ModelEntry, operation: Operation, prepared: PreparedVersion, result: PlacementResult): void {
    const { version } = prepared;
    const { devices, failures, error, notes } = result;
    operation.placing.delete(version);
    this.#changed = true;
    for (const note of notes) this.#log('info', note, entry.name);
    for (const failure of failures) operation.request.impose?.failures.push({ version, ...failure });
    const state = entry.version(version);
    const removals: Removal[] = [];
    if (devices.length === 0) {
      const reason = error ?? intarsiaError('UNAVAILABLE', `no device took model ${JSON.stringify(entry.name)}`);
      operation.errors.set(version, reason);
      this.#failVersion(entry, version, reason);
      this.#effects.push({ type: 'release', version: prepared, replaced: false });
    } else {
      for (const failure of failures) {
        this.#log('warn', `version ${version} is not on ${failure.device}: ${failure.error.message}`, entry.name);
      }
      const before = state.loaded;
      const gone = (before?.served.devices ?? []).filter((device) => !devices.includes(device));
      if (gone.length > 0) removals.push({ model: entry.name, version, devices: gone });
      if (before !== undefined) this.#effects.push({ type: 'release', version: before, replaced: true });
      const forms = new Map([...(before?.identity === prepared.identity ? before.forms : []), ...result.forms]);
      state.loaded = loadedVersion(prepared, devices, forms);
      state.state = 'READY';
      state.reason = '';
      state.isQuarantined = false;
      this.#log(
        'info',
        `version ${version} is ready on ${devices.join(', ')}, SHA-256 ${prepared.served.digest}`,
        entry.name,
      );
    }
    if (operation.placing.size === 0) this.#conclude(entry, operation, removals);
    // Not the last one: what is left on other devices goes at once, nobody routes to it any more.
    else if (removals.length > 0) this.#effects.push({ type: 'remove', model: entry.name, operation: 0, removals });
  }

  /** Every version has loaded or failed. */
  #conclude(entry: ModelEntry, operation: Operation, removals: readonly Removal[]): void {
    const [error] = operation.errors.values();
    const all = [...removals];
    const { selected } = operation;
    if (error !== undefined && operation.imposed !== undefined) {
      // Whoever imposes has decided what goes, and does not wait for what comes.
      all.push(...this.#retire(entry, (version) => selected?.has(version) !== true));
    }
    if (error === undefined) {
      entry.reason = '';
      all.push(...this.#retire(entry, (version) => selected?.has(version) !== true));
      this.#answer(operation.request, { ok: true });
    } else {
      // The versions that served before go on serving.
      entry.reason = entry.isLoaded ? '' : error.message;
      if (error.retryable) entry.tried = '';
      this.#answer(operation.request, { ok: false, error });
    }
    if (all.length > 0) this.#remove(entry, operation, all);
    else this.#end(entry);
  }

  /** Takes versions out of the catalogue; their sessions go afterwards. */
  #retire(entry: ModelEntry, isRetired: (version: ModelVersion) => boolean): Removal[] {
    const removals: Removal[] = [];
    for (const [version, state] of entry.versions) {
      if (state.loaded === undefined || !isRetired(version)) continue;
      state.state = 'UNLOADING';
      state.reason = '';
      removals.push({ model: entry.name, version, devices: state.loaded.served.devices });
    }
    return removals;
  }

  #remove(entry: ModelEntry, operation: Operation, removals: readonly Removal[]): void {
    operation.removing = true;
    this.#changed = true;
    this.#effects.push({ type: 'remove', model: entry.name, operation: operation.id, removals });
  }

  #removed(entry: ModelEntry, operation: Operation): void {
    for (const [version, state] of [...entry.versions]) {
      if (state.state !== 'UNLOADING') continue;
      if (state.loaded !== undefined) this.#effects.push({ type: 'release', version: state.loaded, replaced: false });
      state.loaded = undefined;
      state.state = 'UNAVAILABLE';
      state.reason = 'unloaded';
      if (isLoadOf(operation)) entry.versions.delete(version);
      this.#log('info', `version ${version} is unloaded`, entry.name);
    }
    this.#changed = true;
    if (isLoadOf(operation)) this.#end(entry);
    else this.#unloaded(entry);
  }

  #unloaded(entry: ModelEntry): void {
    entry.markUnloaded('UNAVAILABLE', 'unloaded');
    entry.reason = '';
    entry.tried = '';
    const request = entry.running?.request;
    if (request !== undefined) this.#answer(request, { ok: true });
    this.#end(entry);
  }

  #end(entry: ModelEntry): void {
    entry.running = undefined;
    this.#changed = true;
    const next = entry.waiting.shift();
    if (next === undefined) this.#tidy(entry);
    else this.#start(entry, next);
  }

  /** A model that is neither in the repository nor loaded is nothing to remember. */
  #tidy(entry: ModelEntry): void {
    if (entry.listing !== undefined || entry.isLoaded || entry.imposed !== undefined) return;
    this.#models.delete(entry.name);
    this.#changed = true;
  }

  #answer(request: ModelRequest, outcome: RegistryOutcome): void {
    if (request.impose !== undefined) {
      const { replyTo, failures } = request.impose;
      const untried = outcome.ok || failures.length > 0 ? {} : { error: outcome.error };
      this.#effects.push({ type: 'reply-imposed', to: replyTo, outcome: { failures: [...failures], ...untried } });
    }
    if (request.replyTo !== undefined) this.#effects.push({ type: 'reply', to: request.replyTo, outcome });
    if (request.scan !== undefined) this.#scanStep(request.scan);
  }

  // Failures

  #fail(entry: ModelEntry, error: IntarsiaError): void {
    entry.reason = entry.isLoaded ? '' : error.message;
    if (error.retryable) entry.tried = '';
    for (const version of entry.versions.keys()) this.#failVersion(entry, version, error);
    if (entry.versions.size === 0) this.#log('warn', `cannot be loaded: ${error.message}`, entry.name);
    this.#changed = true;
  }

  #failVersion(entry: ModelEntry, version: ModelVersion, error: IntarsiaError): void {
    const state = entry.version(version);
    if (state.loaded === undefined) {
      state.state = 'UNAVAILABLE';
      state.reason = error.message;
      state.isQuarantined = error.code === 'MODEL_QUARANTINED';
      this.#log('warn', `version ${version} cannot be loaded: ${error.message}`, entry.name);
    } else {
      state.reason = `serves as it was loaded before; reloading failed: ${error.message}`;
      this.#log('warn', `version ${version} ${state.reason}`, entry.name);
    }
  }

  #deviceGone(device: DeviceId): void {
    for (const entry of this.#models.values()) {
      for (const state of entry.versions.values()) {
        if (!this.#lose(state, device, `device ${device} is gone`)) continue;
        entry.tried = '';
        this.#log('warn', state.reason, entry.name);
      }
    }
  }

  #versionOut({ model, version, digest, device, error }: Extract<RegistryEvent, { type: 'version-out' }>): void {
    const entry = this.#models.get(model);
    const state = entry?.versions.get(version);
    // A device may speak of an artefact that was replaced meanwhile.
    if (entry === undefined || state?.loaded?.served.digest !== digest) return;
    this.#log('warn', `version ${version} is out of service on ${device}: ${error.message}`, model);
    if (this.#lose(state, device, error.message)) state.isQuarantined = error.code === 'MODEL_QUARANTINED';
  }

  /** A version is no longer on a device. True when that was the last one: nobody serves it, for this reason. */
  #lose(state: VersionEntry, device: DeviceId, reason: string): boolean {
    const { loaded } = state;
    if (loaded?.served.devices.includes(device) !== true) return false;
    const devices = loaded.served.devices.filter((other) => other !== device);
    this.#changed = true;
    if (devices.length > 0) {
      state.loaded = { ...loaded, served: { ...loaded.served, devices }, identity: '' };
      return false;
    }
    state.loaded = undefined;
    state.state = 'UNAVAILABLE';
    state.reason = reason;
    this.#effects.push({ type: 'release', version: loaded, replaced: false });
    return true;
  }

  #entry(name: ModelName): ModelEntry {
    let entry = this.#models.get(name);
    if (entry === undefined) {
      entry = new ModelEntry(name);
      this.#models.set(name, entry);
      this.#changed = true;
    }
    return entry;
  }

  #log(level: 'info' | 'warn', message: string, model?: ModelName): void {
    this.#effects.push({ type: 'log', level, message, ...(model === undefined ? {} : { model }) });
  }
}

/** Whether the operation has loaded what it selected, rather than taken everything away. */
function isLoadOf({ selected }: Operation): boolean {
  return selected !== undefined;
}

function imposedDevices(
  { imposed, forms: allForms }: Operation,
  { loaded }: VersionEntry,
  { version, identity }: PreparedVersion,
): ImposedDevices | undefined {
  const devices = imposed?.get(version);
  if (devices === undefined) return undefined;
  const forms = allForms.get(version) ?? new Map<DeviceId, string>();
  const isKeptOn = (device: DeviceId): boolean => {
    if (loaded?.identity !== identity || !loaded.served.devices.includes(device)) return false;
    const form = forms.get(device);
    return form === undefined || form === (loaded.forms.get(device) ?? '');
  };
  return { devices, forms, kept: new Set(devices.filter(isKeptOn)) };
}

/** Whether everything is where it is to be. */
function isKept({ devices, kept }: ImposedDevices, have: readonly DeviceId[]): boolean {
  return devices.length === have.length && devices.every((device) => kept.has(device));
}

function ascending(versions: Iterable<ModelVersion>): readonly ModelVersion[] {
  return [...versions].sort((a, b) => Number(a) - Number(b));
}

function loadedVersion(
  prepared: PreparedVersion,
  devices: readonly DeviceId[],
  forms: LoadedVersion['forms'],
): LoadedVersion {
  return {
    forms,
    served: { ...prepared.served, devices },
    identity: prepared.identity,
    release: () => prepared.release(),
  };
}

function unknownModel(name: string): IntarsiaError {
  return intarsiaError('MODEL_NOT_FOUND', `no model ${JSON.stringify(name.slice(0, 120))} in the repositories`, {
    model: name.slice(0, 120),
  });
}
