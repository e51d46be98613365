/** The model version that a request means, or why there is none, in Triton's words. */
import type { CatalogEntry, ServedModel } from '#core/catalog.js';
import { intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { ModelVersion } from '#core/ids.js';

/** @throws MODEL_NOT_FOUND, MODEL_NOT_READY or MODEL_QUARANTINED with the reason. */
export function findServedModel(entry: CatalogEntry | undefined, modelName: string, modelVersion: string): ServedModel {
  if (entry === undefined) throw unknownModel(modelName);
  const version = modelVersion === '' ? entry.defaultVersion : (modelVersion as ModelVersion);
  const served = version === undefined ? undefined : entry.served.get(version);
  if (served !== undefined) return served;
  if (version === undefined) {
    const told = entry.versions.find(({ reason: why }) => why !== '');
    const reason = entry.reason || told?.reason || 'no version is ready';
    throw intarsiaError(
      told?.isQuarantined === true ? 'MODEL_QUARANTINED' : 'MODEL_NOT_READY',
      `Request for unknown model: '${modelName}' has no available versions: ${reason}`,
    );
  }
  const status = entry.versions.find((known) => known.version === version);
  if (status === undefined || status.state === 'READY') {
    throw intarsiaError(
      'MODEL_NOT_FOUND',
      `Request for unknown model: '${modelName}' version ${version.slice(0, 80)} is not found`,
    );
  }
  throw intarsiaError(
    status.isQuarantined ? 'MODEL_QUARANTINED' : 'MODEL_NOT_READY',
    `'${modelName}' version ${version} is not at ready state: ${status.state.toLowerCase()}${status.reason === '' ? '' : `, ${status.reason}`}`,
  );
}

function unknownModel(name: string): IntarsiaError {
  return intarsiaError('MODEL_NOT_FOUND', `Request for unknown model: '${name.slice(0, 255)}' is not found`);
}

/** A model that the caller's token does not cover. */
export function modelForbidden(name: string): IntarsiaError {
  return intarsiaError('PERMISSION_DENIED', `the token may not use model '${name.slice(0, 255)}'`);
}
