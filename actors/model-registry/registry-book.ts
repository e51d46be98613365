/**
 * The registry's book: its models, and what the event in hand has led to so far. Those who decide (behavior.ts, operations.ts)
 * write in it; what they write is carried out once the event is through.
 */
import type { IntarsiaError } from '#core/errors.js';
import type { DeviceId, ModelName, ModelVersion } from '#core/ids.js';
import type { RegistryEffect } from './events.js';
import { ModelEntry, type ModelRequest, type PendingScan, type VersionEntry } from './model-entry.js';
import type { RegistryOutcome } from './protocol.js';

export class RegistryBook {
  readonly models = new Map<ModelName, ModelEntry>();
  effects: RegistryEffect[] = [];
  /** Whether the catalogue says something else now. */
  hasChanged = false;

  entry(name: ModelName): ModelEntry {
    let entry = this.models.get(name);
    if (entry === undefined) {
      entry = new ModelEntry(name);
      this.models.set(name, entry);
      this.hasChanged = true;
    }
    return entry;
  }

  /** A model that is neither in the repository nor loaded is nothing to remember. */
  tidy(entry: ModelEntry): void {
    if (entry.listing !== undefined || entry.isLoaded || entry.imposed !== undefined) return;
    this.models.delete(entry.name);
    this.hasChanged = true;
  }

  log(level: 'info' | 'warn', message: string, model?: ModelName): void {
    this.effects.push({ type: 'log', level, message, ...(model === undefined ? {} : { model }) });
  }

  answer(request: ModelRequest, outcome: RegistryOutcome): void {
    if (request.impose !== undefined) {
      const { replyTo, failures } = request.impose;
      const untried = outcome.ok || failures.length > 0 ? {} : { error: outcome.error };
      this.effects.push({ type: 'reply-imposed', to: replyTo, outcome: { failures: [...failures], ...untried } });
    }
    if (request.replyTo !== undefined) this.effects.push({ type: 'reply', to: request.replyTo, outcome });
    if (request.scan !== undefined) this.scanStep(request.scan);
  }

  scanStep(scan: PendingScan): void {
    scan.open -= 1;
    if (scan.open > 0) return;
    for (const to of scan.replies) this.effects.push({ type: 'reply', to, outcome: { ok: true } });
  }

  fail(entry: ModelEntry, error: IntarsiaError): void {
    entry.reason = entry.isLoaded ? '' : error.message;
    if (error.retryable) entry.tried = '';
    for (const version of entry.versions.keys()) this.failVersion(entry, version, error);
    if (entry.versions.size === 0) this.log('warn', `cannot be loaded: ${error.message}`, entry.name);
    this.hasChanged = true;
  }

  failVersion(entry: ModelEntry, version: ModelVersion, error: IntarsiaError): void {
    const state = entry.version(version);
    if (state.loaded === undefined) {
      state.state = 'UNAVAILABLE';
      state.reason = error.message;
      state.isQuarantined = error.code === 'MODEL_QUARANTINED';
      this.log('warn', `version ${version} cannot be loaded: ${error.message}`, entry.name);
    } else {
      state.reason = `serves as it was loaded before; reloading failed: ${error.message}`;
      this.log('warn', `version ${version} ${state.reason}`, entry.name);
    }
  }

  /** A version is no longer on a device. True when that was the last one: nobody serves it, for this reason. */
  lose(state: VersionEntry, device: DeviceId, reason: string): boolean {
    const { loaded } = state;
    if (loaded?.served.devices.includes(device) !== true) return false;
    const devices = loaded.served.devices.filter((other) => other !== device);
    this.hasChanged = true;
    if (devices.length > 0) {
      state.loaded = { ...loaded, served: { ...loaded.served, devices }, identity: '' };
      return false;
    }
    state.loaded = undefined;
    state.state = 'UNAVAILABLE';
    state.reason = reason;
    this.effects.push({ type: 'release', version: loaded, replaced: false });
    return true;
  }

  /** The versions that the repository has, beside those that are loaded. */
  showListing(entry: ModelEntry, reason: string): void {
    const listed = new Set(entry.listing?.versions ?? []);
    for (const [version, { loaded }] of [...entry.versions]) {
      if (loaded === undefined && !listed.has(version)) {
        entry.versions.delete(version);
        this.hasChanged = true;
      }
    }
    for (const version of listed) {
      if (entry.versions.has(version)) continue;
      entry.version(version).reason = reason;
      this.hasChanged = true;
    }
  }
}
