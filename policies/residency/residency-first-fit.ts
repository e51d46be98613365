/**
 * Which devices a model goes on: first fit in the order the configuration, or the silicon, prefers.
 *
 * - Parameter `intarsia_devices` names devices or execution providers, separated by commas: the model goes on every one named.
 * - KIND_GPU: the GPUs with the listed numbers, or every GPU. Where the host has fewer, those it has; where it has none, as
 *   AUTO, with a note: the same configuration must serve on a smaller host.
 * - KIND_CPU: the first CPU device.
 * - KIND_AUTO, KIND_MODEL, or no group: one device, the best accelerator that has room, else the CPU.
 *
 * An emulated device, a software GPU, WebAssembly and another server are slower or somewhere else: AUTO takes them last.
 */
import { estimateSessionBytes } from '#core/memory-ledger.js';
import { formatBytes } from '#core/units.js';
import { intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { DeviceDescriptor } from '#core/device.js';
import type { DeviceId } from '#core/ids.js';
import type { InstanceGroup, ModelConfig } from '#core/model-config.js';
import type { TensorSpec } from '#core/tensor.js';

export interface ResidencyDevice {
  readonly descriptor: DeviceDescriptor;
  /** False when it failed or is being drained. */
  readonly usable: boolean;
  /** Bytes it could give, idle sessions included: they are evicted when room is needed. */
  readonly memoryFreeBytes: number;
  /** Bytes of weights in the form of the model that this device would get; absent: as the request says. */
  readonly weightBytes?: number;
}

export interface ResidencyRequest {
  readonly config: ModelConfig;
  readonly weightBytes: number;
  /** Of the artefact. */
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
}

export type ResidencyPlan =
  | { readonly ok: true; readonly devices: readonly DeviceId[]; readonly notes: readonly string[] }
  | { readonly ok: false; readonly error: IntarsiaError };

/** Chooses devices. Fails with CONFIG-like INVALID_ARGUMENT (a named device does not exist), UNAVAILABLE (no usable device) or OUT_OF_MEMORY. */
export function firstFit(request: ResidencyRequest, devices: readonly ResidencyDevice[]): ResidencyPlan {
  const { config } = request;
  const notes: string[] = [];
  const usable = devices.filter((device) => device.usable);
  if (usable.length === 0) {
    return failed(
      intarsiaError('UNAVAILABLE', `model '${config.name}' finds no usable device among ${devices.length}`),
    );
  }
  const bytesOn: BytesOn = ({ weightBytes = request.weightBytes }) =>
    estimateSessionBytes({
      weightBytes,
      inputs: request.inputs,
      outputs: request.outputs,
      items: config.maxBatchSize,
    });
  const named = config.parameters.get('intarsia_devices');
  if (named !== undefined) return placeNamed({ config, named, usable, devices, bytesOn });
  const chosen = new Set<ResidencyDevice>();
  const groups = config.instanceGroups.length > 0 ? config.instanceGroups : [autoGroup];
  for (const group of groups) {
    const wanted = candidatesOf(group, usable, notes, config.name);
    const fitting = wanted.devices.filter((device) => device.memoryFreeBytes >= bytesOn(device));
    if (fitting.length === 0) return failed(outOfMemory(config.name, bytesOn, wanted.devices));
    if (wanted.every) for (const device of fitting) chosen.add(device);
    else chosen.add(fitting[0] as ResidencyDevice);
    for (const device of wanted.every ? wanted.devices : []) {
      const bytes = bytesOn(device);
      if (device.memoryFreeBytes < bytes) notes.push(`${device.descriptor.id} is left out: ${missing(device, bytes)}`);
    }
  }
  return { ok: true, devices: ids(chosen), notes };
}

const autoGroup: InstanceGroup = { name: '', kind: 'AUTO', count: 1, gpus: [] };

function placeNamed(options: {
  readonly config: ModelConfig;
  readonly named: string;
  readonly usable: readonly ResidencyDevice[];
  readonly devices: readonly ResidencyDevice[];
  readonly bytesOn: BytesOn;
}): ResidencyPlan {
  const { config, named, usable, devices, bytesOn } = options;
  const chosen = new Set<ResidencyDevice>();
  for (const name of named.split(',').map((text) => text.trim())) {
    if (name === '') continue;
    const matches = matching(name, usable);
    if (matches.length === 0) {
      const known = matching(name, devices).length > 0;
      return failed(
        intarsiaError(
          known ? 'UNAVAILABLE' : 'INVALID_ARGUMENT',
          known
            ? `model '${config.name}': device ${name} is not usable now`
            : `model '${config.name}': parameter intarsia_devices names ${JSON.stringify(name)}; this host has ${devices.map((device) => device.descriptor.id).join(', ')}`,
        ),
      );
    }
    for (const device of matches) chosen.add(device);
  }
  if (chosen.size === 0) {
    return failed(
      intarsiaError('INVALID_ARGUMENT', `model '${config.name}': parameter intarsia_devices names no device`),
    );
  }
  const full = [...chosen].filter((device) => device.memoryFreeBytes < bytesOn(device));
  if (full.length > 0) return failed(outOfMemory(config.name, bytesOn, full));
  return { ok: true, devices: ids(chosen), notes: [] };
}

/** The device with that id; else those with that execution provider. */
function matching(name: string, devices: readonly ResidencyDevice[]): ResidencyDevice[] {
  const byId = devices.filter((device) => device.descriptor.id === name);
  return byId.length > 0 ? byId : devices.filter((device) => device.descriptor.provider === name);
}

function candidatesOf(
  group: InstanceGroup,
  usable: readonly ResidencyDevice[],
  notes: string[],
  model: string,
): { readonly devices: readonly ResidencyDevice[]; readonly every: boolean } {
  const ranked = [...usable].sort((a, b) => preference(a.descriptor) - preference(b.descriptor));
  if (group.kind === 'CPU') {
    const cpus = usable.filter((device) => device.descriptor.kind === 'cpu');
    if (cpus.length > 0) return { devices: cpus, every: false };
    notes.push(`model '${model}' asks for a CPU; this host offers none, so it is placed as KIND_AUTO`);
    return { devices: ranked, every: false };
  }
  if (group.kind !== 'GPU') return { devices: ranked, every: false };
  const gpus = usable.filter(
    (device) => device.descriptor.kind === 'gpu' && preference(device.descriptor) < softwareFrom,
  );
  const listed = group.gpus.length === 0 ? gpus : gpus.filter((_, index) => group.gpus.includes(index));
  if (listed.length > 0) {
    const absent = group.gpus.filter((index) => index >= gpus.length);
    if (absent.length > 0)
      notes.push(`model '${model}' asks for GPU ${absent.join(', ')}; this host has ${gpus.length}`);
    return { devices: listed, every: true };
  }
  notes.push(`model '${model}' asks for a GPU this host does not have; it is placed as KIND_AUTO`);
  return { devices: ranked, every: false };
}

/** From here on a device is slower than the CPU, or somewhere else. */
const softwareFrom = 10;

/** Order in which AUTO tries devices, smallest first. */
function preference(device: DeviceDescriptor): number {
  if (device.emulated || device.kind === 'emulated') return softwareFrom + 3;
  if (device.kind === 'gpu') return device.facts['software'] === true ? softwareFrom + 2 : 0;
  switch (device.kind) {
    case 'npu':
      return 1;
    case 'cpu':
      return 2;
    case 'remote':
      return softwareFrom;
    case 'wasm':
      return softwareFrom + 1;
  }
}

/** Bytes that the model takes on a device. */
type BytesOn = (device: ResidencyDevice) => number;

function outOfMemory(model: string, bytesOn: BytesOn, devices: readonly ResidencyDevice[]): IntarsiaError {
  const bytes = Math.min(...devices.map(bytesOn));
  const details: Record<string, number> = { bytesNeeded: bytes };
  for (const device of devices) {
    details[`bytesMissing ${device.descriptor.id}`] = bytesOn(device) - device.memoryFreeBytes;
  }
  const each = devices.map((device) => `${device.descriptor.id}: ${missing(device, bytesOn(device))}`).join('; ');
  return intarsiaError('OUT_OF_MEMORY', `model '${model}' needs about ${formatBytes(bytes)}; ${each}`, details);
}

function missing(device: ResidencyDevice, bytes: number): string {
  return `${bytes - device.memoryFreeBytes} bytes missing (${formatBytes(device.memoryFreeBytes)} free)`;
}

function ids(devices: ReadonlySet<ResidencyDevice>): DeviceId[] {
  return [...devices].map((device) => device.descriptor.id);
}

function failed(error: IntarsiaError): ResidencyPlan {
  return { ok: false, error };
}
