/** Which device a client insists on, and why a request has nowhere to go or is refused. */
import type { ServedModel } from '#core/catalog.js';
import { intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { InferenceRequest } from '#core/inference.js';
import type { Candidate, ShedReason } from '#core/picker.js';
import type { Stage } from '#core/replica.js';
import { deviceKey } from '#core/routing-table.js';

/** What is told of a model that has nowhere to go. */
export type RoutedModel = Pick<ServedModel, 'name' | 'version' | 'devices' | 'elsewhere'>;

/** Whether the stage runs on the device, written `device` or `host/device`. */
export function isOn(stage: Stage | undefined, device: string): boolean {
  return stage !== undefined && (stage.device === device || deviceKey(stage.host, stage.device) === device);
}

/** `candidates`: all replicas, in use and in reserve. `device`: the one the client insists on; empty for any. */
export function noReplica(model: RoutedModel, candidates: readonly Candidate[], device: string): IntarsiaError {
  const isServedThere =
    model.devices.some((id) => id === device) || candidates.some(({ replica }) => isOn(replica.stages[0], device));
  if (device !== '' && !isServedThere) {
    return intarsiaError(
      'INVALID_ARGUMENT',
      `parameter 'intarsia_device' is '${device}'; model '${model.name}' is on ${listed([...model.devices, ...(model.elsewhere ?? [])])}`,
      { device },
    );
  }
  return candidates.length === 0
    ? intarsiaError('UNAVAILABLE', `no device serves model '${model.name}' version ${model.version} now`)
    : intarsiaError(
        'DEVICE_UNAVAILABLE',
        `none of the ${candidates.length} devices of model '${model.name}' can take a request now`,
      );
}

/** The picker refused the request: no candidate would answer it in time, and its class would rather know now. */
export function shedError(request: InferenceRequest, reason: ShedReason | undefined): IntarsiaError {
  if (reason === undefined) {
    return intarsiaError('RESOURCE_EXHAUSTED', `shed: a request to model '${request.model}' was refused`, {
      reason: 'shed',
    });
  }
  const { class: sloClass, sloMs, soonestMs } = reason;
  return intarsiaError(
    'RESOURCE_EXHAUSTED',
    `shed: this ${sloClass} request to model '${request.model}' should be answered within ${sloMs} ms and would be after ${soonestMs.toFixed(1)} ms at the soonest`,
    { reason: 'shed', class: sloClass, sloMs, soonestMs },
  );
}

const listedMax = 20;

function listed(places: readonly string[]): string {
  const shown = places.slice(0, listedMax).join(', ');
  return places.length > listedMax ? `${shown} and ${places.length - listedMax} more` : shown;
}
