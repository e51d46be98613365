/**
 * Operations of the registry on one model: at most one a model at a time, models beside each other. A version that is reloaded
 * keeps serving until its successor is ready on a device; what the catalogue no longer names is unloaded after. What fails
 * leaves what served before.
 */
import { intarsiaError } from '#core/errors.js';
import type { DeviceId, ModelName, ModelVersion } from '#core/ids.js';
import type { RegistryEvent, Removal } from './events.js';
import type { LoadedVersion, ModelEntry, ModelRequest, Operation, VersionEntry } from './model-entry.js';
import type { ImposedDevices, PlacementResult } from './place-version.js';
import type { PreparedModel, PreparedVersion } from './prepare-model.js';
import type { RegistryBook } from './registry-book.js';

export interface OperationsOptions {
  /** Requests that may wait for one model. */
  readonly waitingMax: number;
  /** Whether the registry loads a model of the repository by itself. */
  readonly isOwn: (name: ModelName) => boolean;
}

export class Operations {
  readonly #book: RegistryBook;
  readonly #options: OperationsOptions;
  #count = 0;

  constructor(book: RegistryBook, options: OperationsOptions) {
    this.#book = book;
    this.#options = options;
  }

  enqueue(entry: ModelEntry, request: ModelRequest): void {
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
      this.#book.answer(request, { ok: false, error });
      return;
    }
    entry.waiting.push(request);
  }

  #start(entry: ModelEntry, request: ModelRequest): void {
    this.#count += 1;
    const operation: Operation = {
      id: this.#count,
      request,
      imposed: entry.imposed,
      forms: entry.imposedForms,
      selected: undefined,
      placing: new Set(),
      errors: new Map(),
      removing: false,
    };
    entry.running = operation;
    this.#book.hasChanged = true;
    const isRestored = request.kind === 'restore' && operation.imposed === undefined && this.#options.isOwn(entry.name);
    const isLoad = (request.kind === 'load' || isRestored) && operation.imposed?.size !== 0;
    if (isLoad) {
      if (request.overrides.files.size === 0) this.#book.showListing(entry, '');
      entry.markUnloaded('LOADING', '');
      const { name: model } = entry;
      const imposed = operation.imposed === undefined ? {} : { imposed: ascending(operation.imposed.keys()) };
      this.#book.effects.push({
        type: 'prepare',
        model,
        operation: operation.id,
        overrides: request.overrides,
        ...imposed,
      });
      return;
    }
    const removals = this.#retire(entry, () => true);
    if (removals.length === 0) this.#unloaded(entry);
    else this.#remove(entry, operation, removals);
  }

  progress(event: Extract<RegistryEvent, { readonly operation: number }>): void {
    const entry = this.#book.models.get(event.model);
    const operation = entry?.running;
    if (entry === undefined || operation?.id !== event.operation) {
      // An operation of before a restart: what it brought is not wanted any more.
      if (event.type === 'placed')
        this.#book.effects.push({ type: 'release', version: event.prepared, replaced: false });
      if (event.type === 'prepared') {
        for (const outcome of event.prepared.versions) {
          if (outcome.ok) this.#book.effects.push({ type: 'release', version: outcome.prepared, replaced: false });
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
        this.#book.fail(entry, event.error);
        this.#book.answer(operation.request, { ok: false, error: event.error });
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
    for (const note of notes) this.#book.log('info', note, entry.name);
    const selected = new Set(versions.map((outcome) => (outcome.ok ? outcome.prepared.version : outcome.version)));
    operation.selected = selected;
    for (const [version, { loaded }] of [...entry.versions]) {
      if (loaded === undefined && !selected.has(version)) entry.versions.delete(version);
    }
    this.#book.hasChanged = true;
    for (const outcome of versions) {
      if (!outcome.ok) {
        operation.errors.set(outcome.version, outcome.error);
        operation.request.impose?.failures.push({ version: outcome.version, device: undefined, error: outcome.error });
        this.#book.failVersion(entry, outcome.version, outcome.error);
        continue;
      }
      const { prepared } = outcome;
      const version = entry.version(prepared.version);
      const imposed = imposedDevices(operation, version, prepared);
      const isThere = version.loaded?.identity === prepared.identity && version.state === 'READY';
      if (isThere && (imposed === undefined || isKept(imposed, version.loaded?.served.devices ?? []))) {
        version.reason = '';
        this.#book.effects.push({ type: 'release', version: prepared, replaced: false });
        continue;
      }
      if (version.loaded === undefined) version.state = 'LOADING';
      operation.placing.add(prepared.version);
      const previous = version.loaded?.served.devices ?? [];
      const devices = imposed === undefined ? {} : { imposed };
      this.#book.effects.push({ type: 'place', operation: operation.id, prepared, previous, ...devices });
    }
    if (operation.placing.size === 0) this.#conclude(entry, operation, []);
  }

  #placed(entry: ModelEntry, operation: Operation, prepared: PreparedVersion, result: PlacementResult): void {
    const { version } = prepared;
    const { devices, failures, error, notes } = result;
    operation.placing.delete(version);
    this.#book.hasChanged = true;
    for (const note of notes) this.#book.log('info', note, entry.name);
    for (const failure of failures) operation.request.impose?.failures.push({ version, ...failure });
    const state = entry.version(version);
    const removals: Removal[] = [];
    if (devices.length === 0) {
      const reason = error ?? intarsiaError('UNAVAILABLE', `no device took model ${JSON.stringify(entry.name)}`);
      operation.errors.set(version, reason);
      this.#book.failVersion(entry, version, reason);
      this.#book.effects.push({ type: 'release', version: prepared, replaced: false });
    } else {
      for (const failure of failures) {
        this.#book.log('warn', `version ${version} is not on ${failure.device}: ${failure.error.message}`, entry.name);
      }
      const before = state.loaded;
      const gone = (before?.served.devices ?? []).filter((device) => !devices.includes(device));
      if (gone.length > 0) removals.push({ model: entry.name, version, devices: gone });
      if (before !== undefined) this.#book.effects.push({ type: 'release', version: before, replaced: true });
      const forms = new Map([...(before?.identity === prepared.identity ? before.forms : []), ...result.forms]);
      state.loaded = loadedVersion(prepared, devices, forms);
      state.state = 'READY';
      state.reason = '';
      state.isQuarantined = false;
      this.#book.log(
        'info',
        `version ${version} is ready on ${devices.join(', ')}, SHA-256 ${prepared.served.digest}`,
        entry.name,
      );
    }
    if (operation.placing.size === 0) this.#conclude(entry, operation, removals);
    // Not the last one: what is left on other devices goes at once, nobody routes to it any more.
    else if (removals.length > 0)
      this.#book.effects.push({ type: 'remove', model: entry.name, operation: 0, removals });
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
      this.#book.answer(operation.request, { ok: true });
    } else {
      // The versions that served before go on serving.
      entry.reason = entry.isLoaded ? '' : error.message;
      if (error.retryable) entry.tried = '';
      this.#book.answer(operation.request, { ok: false, error });
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
    this.#book.hasChanged = true;
    this.#book.effects.push({ type: 'remove', model: entry.name, operation: operation.id, removals });
  }

  #removed(entry: ModelEntry, operation: Operation): void {
    for (const [version, state] of [...entry.versions]) {
      if (state.state !== 'UNLOADING') continue;
      if (state.loaded !== undefined)
        this.#book.effects.push({ type: 'release', version: state.loaded, replaced: false });
      state.loaded = undefined;
      state.state = 'UNAVAILABLE';
      state.reason = 'unloaded';
      if (isLoadOf(operation)) entry.versions.delete(version);
      this.#book.log('info', `version ${version} is unloaded`, entry.name);
    }
    this.#book.hasChanged = true;
    if (isLoadOf(operation)) this.#end(entry);
    else this.#unloaded(entry);
  }

  #unloaded(entry: ModelEntry): void {
    entry.markUnloaded('UNAVAILABLE', 'unloaded');
    entry.reason = '';
    entry.tried = '';
    const request = entry.running?.request;
    if (request !== undefined) this.#book.answer(request, { ok: true });
    this.#end(entry);
  }

  #end(entry: ModelEntry): void {
    entry.running = undefined;
    this.#book.hasChanged = true;
    const next = entry.waiting.shift();
    if (next === undefined) this.#book.tidy(entry);
    else this.#start(entry, next);
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
