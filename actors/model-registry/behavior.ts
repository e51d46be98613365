/**
 * What the registry decides: events in, effects out. It knows no clock, no files and no devices.
 *
 * Here: what operators ask for, what a look at the repository finds, what devices lose. How a model is then loaded or unloaded
 * stands in operations.ts.
 */
import type { Catalog } from '#core/catalog.js';
import { intarsiaError, type IntarsiaError } from '#core/errors.js';
import { modelName, type DeviceId, type ModelName } from '#core/ids.js';
import type { ModelListing, RepositoryListing } from '#ports/model-files.js';
import type { ReplyTo } from '#runtime/actor.js';
import type { RegistryEffect, RegistryEvent } from './events.js';
import type { ModelEntry, PendingScan } from './model-entry.js';
import { Operations } from './operations.js';
import type { LoadOverrides, ModelRegistryMessage, RegistryOutcome } from './protocol.js';
import { RegistryBook } from './registry-book.js';

export interface BehaviorOptions {
  readonly mode: 'none' | 'poll' | 'explicit';
  readonly startupModels: readonly string[];
  readonly waitingMax: number;
}

const noOverrides: LoadOverrides = { files: new Map() };

export class RegistryBehavior {
  readonly #options: BehaviorOptions;
  readonly #book = new RegistryBook();
  readonly #operations: Operations;
  #catalog: Catalog = { revision: 0, models: new Map() };
  #isScanning = false;
  #hasScanned = false;
  #scanWaiters: ReplyTo<RegistryOutcome>[] = [];

  constructor(options: BehaviorOptions) {
    this.#options = options;
    const { waitingMax } = options;
    this.#operations = new Operations(this.#book, { waitingMax, isOwn: (name) => this.#isOwn(name, true) });
  }

  /** What to do about an event, in order. A new catalogue always comes first. */
  handle(event: RegistryEvent): readonly RegistryEffect[] {
    this.#book.effects = [];
    this.#decide(event);
    if (!this.#book.hasChanged) return this.#book.effects;
    this.#book.hasChanged = false;
    const models = new Map([...this.#book.models].map(([name, entry]) => [name, entry.view()]));
    this.#catalog = { revision: this.#catalog.revision + 1, models };
    return [{ type: 'publish', catalog: this.#catalog }, ...this.#book.effects];
  }

  /**
   * After a failure of the actor: what was under way will never end. Its callers are told, and the next look tries again.
   * What devices have is still there.
   */
  recover(): readonly RegistryEffect[] {
    this.#book.effects = [];
    const error = intarsiaError('UNAVAILABLE', 'the model registry was restarted; ask again');
    for (const entry of this.#book.models.values()) {
      const requests = [...(entry.running === undefined ? [] : [entry.running.request]), ...entry.waiting.splice(0)];
      entry.running = undefined;
      entry.tried = '';
      for (const request of requests) this.#book.answer(request, { ok: false, error });
      for (const version of entry.versions.values()) {
        if (version.state !== 'LOADING' && version.state !== 'UNLOADING') continue;
        version.state = version.loaded === undefined ? 'UNAVAILABLE' : 'READY';
        version.reason = version.loaded === undefined ? error.message : '';
      }
    }
    for (const to of this.#scanWaiters.splice(0))
      this.#book.effects.push({ type: 'reply', to, outcome: { ok: false, error } });
    this.#isScanning = false;
    if (this.#options.mode === 'poll') this.#book.effects.push({ type: 'poll-later' });
    return this.#book.effects;
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
        this.#book.effects.push({ type: 'tell-catalog', to: event.replyTo, catalog: this.#catalog });
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
        this.#operations.progress(event);
    }
  }

  // What operators ask for

  #ask(message: Extract<ModelRegistryMessage, { type: 'load' | 'unload' }>): void {
    const { type, replyTo } = message;
    const refuse = (error: IntarsiaError): void => {
      this.#book.effects.push({ type: 'reply', to: replyTo, outcome: { ok: false, error } });
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
    const known = this.#book.models.get(name);
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
    this.#operations.enqueue(known ?? this.#book.entry(name), { kind: type, overrides, replyTo, scan: undefined });
  }

  #impose({ model, versions, forms, replyTo }: Extract<ModelRegistryMessage, { type: 'impose' }>): void {
    const entry = this.#book.entry(model);
    const impose = { replyTo, failures: [] };
    entry.imposed = versions;
    entry.imposedForms = forms;
    const isGivenBack = versions === undefined;
    const kind = isGivenBack ? 'restore' : versions.size === 0 ? 'unload' : 'load';
    this.#operations.enqueue(entry, { kind, overrides: noOverrides, replyTo: undefined, scan: undefined, impose });
  }

  /** Whether the registry loads a model of the repository by itself. */
  #isOwn(name: ModelName, isFirst: boolean): boolean {
    const { mode, startupModels } = this.#options;
    return mode !== 'explicit' || (isFirst && (startupModels.includes('*') || startupModels.includes(name)));
  }

  // Looking at the repository

  #scan(replyTo: ReplyTo<RegistryOutcome>): void {
    if (this.#options.mode === 'none' && this.#hasScanned && !this.#isScanning) {
      this.#book.effects.push({ type: 'reply', to: replyTo, outcome: { ok: true } });
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
      this.#book.effects.push({ type: 'reply', to: replyTo, outcome: { ok: false, error } });
      return;
    }
    this.#scanWaiters.push(replyTo);
    this.#look();
  }

  #look(): void {
    if (this.#isScanning) return;
    this.#isScanning = true;
    this.#book.effects.push({ type: 'list' });
  }

  #listFailed(error: IntarsiaError): void {
    this.#isScanning = false;
    this.#book.log('warn', `the model repository cannot be read: ${error.message}`);
    for (const to of this.#scanWaiters.splice(0))
      this.#book.effects.push({ type: 'reply', to, outcome: { ok: false, error } });
    if (this.#options.mode === 'poll') this.#book.effects.push({ type: 'poll-later' });
  }

  #listed({ models, notes }: RepositoryListing): void {
    const isFirst = !this.#hasScanned;
    this.#isScanning = false;
    this.#hasScanned = true;
    for (const note of isFirst ? notes : []) this.#book.log('warn', note);
    const scan: PendingScan = { replies: this.#scanWaiters.splice(0), open: 1 };
    const seen = new Set<ModelName>();
    for (const listing of models) {
      seen.add(listing.name);
      this.#found(this.#book.entry(listing.name), listing, isFirst, scan);
    }
    for (const entry of [...this.#book.models.values()]) {
      if (entry.listing !== undefined && !seen.has(entry.name)) this.#vanished(entry, scan);
    }
    if (isFirst && this.#options.mode === 'explicit') {
      for (const name of this.#options.startupModels) {
        if (name !== '*' && !seen.has(name as ModelName)) this.#book.log('warn', unknownModel(name).message);
      }
    }
    this.#book.scanStep(scan);
    if (this.#options.mode === 'poll') this.#book.effects.push({ type: 'poll-later' });
  }

  #found(entry: ModelEntry, listing: ModelListing, isFirst: boolean, scan: PendingScan): void {
    entry.listing = listing;
    // What is imposed is loaded when it is imposed; a change of its files is followed as in any mode.
    if (entry.imposed?.size === 0 || (entry.imposed !== undefined && this.#options.mode !== 'poll')) return;
    if (!this.#isOwn(entry.name, isFirst)) {
      if (entry.running === undefined) this.#book.showListing(entry, 'not loaded');
      return;
    }
    if (entry.tried === listing.fingerprint) return;
    entry.tried = listing.fingerprint;
    if (listing.problem !== '' && entry.running === undefined) {
      this.#book.showListing(entry, '');
      this.#book.fail(entry, intarsiaError('MODEL_INVALID', listing.problem, { model: entry.name }));
      return;
    }
    scan.open += 1;
    this.#operations.enqueue(entry, { kind: 'load', overrides: noOverrides, replyTo: undefined, scan });
  }

  #vanished(entry: ModelEntry, scan: PendingScan): void {
    entry.listing = undefined;
    entry.tried = '';
    if (entry.imposed !== undefined) return;
    if (this.#options.mode === 'explicit') {
      // What was loaded by request goes by request.
      if (entry.running === undefined) this.#book.tidy(entry);
      return;
    }
    scan.open += 1;
    this.#operations.enqueue(entry, { kind: 'forget', overrides: noOverrides, replyTo: undefined, scan });
  }

  // Failures

  #deviceGone(device: DeviceId): void {
    for (const entry of this.#book.models.values()) {
      for (const state of entry.versions.values()) {
        if (!this.#book.lose(state, device, `device ${device} is gone`)) continue;
        entry.tried = '';
        this.#book.log('warn', state.reason, entry.name);
      }
    }
  }

  #versionOut({ model, version, digest, device, error }: Extract<RegistryEvent, { type: 'version-out' }>): void {
    const entry = this.#book.models.get(model);
    const state = entry?.versions.get(version);
    // A device may speak of an artefact that was replaced meanwhile.
    if (entry === undefined || state?.loaded?.served.digest !== digest) return;
    this.#book.log('warn', `version ${version} is out of service on ${device}: ${error.message}`, model);
    if (this.#book.lose(state, device, error.message)) state.isQuarantined = error.code === 'MODEL_QUARANTINED';
  }
}

function unknownModel(name: string): IntarsiaError {
  return intarsiaError('MODEL_NOT_FOUND', `no model ${JSON.stringify(name.slice(0, 120))} in the repositories`, {
    model: name.slice(0, 120),
  });
}
