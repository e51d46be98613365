/**
 * What placement is decided by: the folders of the store, read into records. Records that cannot be read are
 * left out and told once; a deployment that cannot be read counts as it was when it last could.
 */
import { messageOf } from '../errors.js';
import { deploymentFromText } from './deployment-file.js';
import type { GridKeys } from './keys.js';
import { manifestFromText } from './manifest.js';
import { readActual } from './record-text.js';
import type { DesiredDeployment } from './reconcile.js';
import type { GridEvent, HostActual, HostAssignment, ModelManifest, RolloutRecord } from './records.js';
import {
  isVariantVerification,
  variantVerificationFromText,
  type VariantVerification,
} from './variant-verification.js';
import { verificationFromText, type VerificationRecord } from './verification.js';
import type { HostId, ModelName, ModelVersion } from '../ids.js';

/** What is read of an entry of the store; those of the store port fit. */
export interface RecordEntry {
  readonly value: string;
  readonly modRevision: number;
}

export type Folder = 'deployments' | 'rollouts' | 'assignments' | 'actual' | 'models' | 'verifications' | 'events';

export const folders: readonly Folder[] = [
  'deployments',
  'rollouts',
  'assignments',
  'actual',
  'models',
  'verifications',
  'events',
];

export function prefixOf(keys: GridKeys, folder: Folder): string {
  return folder === 'actual' ? keys.actuals : keys[folder];
}

export class DesiredState {
  readonly deployments = new Map<string, DesiredDeployment>();
  readonly rollouts = new Map<string, RolloutRecord>();
  readonly assignments = new Map<HostId, HostAssignment>();
  readonly actuals = new Map<HostId, HostActual>();
  /** Sequence of the newest event, and the slot it is in. */
  eventSequence = 0;
  readonly #keys: GridKeys;
  readonly #manifests = new Map<string, ModelManifest>();
  readonly #verifications = new Map<string, VerificationRecord>();
  /** By folder of the version's verifications, then by key. */
  readonly #variants = new Map<string, Map<string, VariantVerification>>();
  readonly #warn: (text: string) => void;

  constructor(keys: GridKeys, warn: (text: string) => void) {
    this.#keys = keys;
    this.#warn = warn;
  }

  readonly manifestOf = (model: ModelName, version: ModelVersion): ModelManifest | undefined =>
    this.#manifests.get(this.#keys.model(model, version));

  readonly verificationOf = (model: ModelName, version: ModelVersion, split: string): VerificationRecord | undefined =>
    this.#verifications.get(this.#keys.verification(model, version, split));

  /** Of variants, in the order of their names. */
  readonly variantsOf = (model: ModelName, version: ModelVersion): readonly VariantVerification[] =>
    [...(this.#variants.get(this.#keys.verification(model, version, ''))?.values() ?? [])].sort((a, b) =>
      a.name < b.name ? -1 : 1,
    );

  /** The content of a key changed, or it is gone. */
  set(folder: Folder, key: string, entry: RecordEntry | undefined): void {
    try {
      this.#set(folder, key, entry);
    } catch (thrown) {
      this.#warn(`${key} cannot be read: ${messageOf(thrown)}`);
    }
  }

  #set(folder: Folder, key: string, entry: RecordEntry | undefined): void {
    const name = key.slice(prefixOf(this.#keys, folder).length).replaceAll('%2F', '/');
    const host = name as HostId;
    switch (folder) {
      case 'deployments': {
        if (entry === undefined) {
          this.deployments.delete(name);
          return;
        }
        const deployment = deploymentFromText(entry.value, key);
        if (deployment.name !== name) throw new Error(`it is of the deployment ${deployment.name}`);
        this.deployments.set(name, { deployment, revision: entry.modRevision });
        return;
      }
      case 'rollouts':
        if (entry === undefined) this.rollouts.delete(name);
        else this.rollouts.set(name, JSON.parse(entry.value) as RolloutRecord);
        return;
      case 'assignments':
        if (entry === undefined) this.assignments.delete(host);
        else this.assignments.set(host, JSON.parse(entry.value) as HostAssignment);
        return;
      case 'actual':
        if (entry === undefined) this.actuals.delete(host);
        else this.actuals.set(host, readActual(entry.value));
        return;
      case 'models':
        if (entry === undefined) this.#manifests.delete(key);
        else this.#manifests.set(key, manifestFromText(entry.value));
        return;
      case 'verifications':
        if (isVariantVerification(key)) {
          this.#setVariant(key, entry);
          return;
        }
        if (entry === undefined) this.#verifications.delete(key);
        else this.#verifications.set(key, verificationFromText(entry.value, key));
        return;
      case 'events':
        if (entry === undefined) return;
        this.eventSequence = Math.max(this.eventSequence, (JSON.parse(entry.value) as GridEvent).sequence);
    }
  }

  #setVariant(key: string, entry: RecordEntry | undefined): void {
    const folder = key.slice(0, key.lastIndexOf('/') + 1);
    if (entry === undefined) {
      this.#variants.get(folder)?.delete(key);
      return;
    }
    const verification = variantVerificationFromText(entry.value, key);
    const known = this.#variants.get(folder) ?? new Map<string, VariantVerification>();
    this.#variants.set(folder, known.set(key, verification));
  }
}
