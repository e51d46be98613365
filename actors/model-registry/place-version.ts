/**
 * Brings a version onto devices: asks how they are, lets the residency policy choose, asks them to load. A device that
 * turns out to have no room is left out and the policy asked again, so that a model goes on the next best one.
 */
import { asIntarsiaError, intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { DeviceId } from '#core/ids.js';
import type { Clock } from '#ports/clock.js';
import type { DeviceStatus, LoadOutcome, Placement } from '#actors/device/protocol.js';
import type { ResidencyDevice } from '#policies/residency/residency-first-fit.js';
import type { ModelRegistryOptions, RegistryDevice } from './options.js';
import { FormChooser, type AllowedForm } from './form-chooser.js';
import type { HeldVariant } from './read-variants.js';

export interface PlacementResult {
  /** Devices it is loaded on, in order of preference; empty: it failed. */
  readonly devices: readonly DeviceId[];
  readonly failures: readonly { readonly device: DeviceId; readonly error: IntarsiaError }[];
  /** Of the devices that have loaded it now: name of the variant, empty for the exact model. */
  readonly forms: ReadonlyMap<DeviceId, string>;
  /** Why it is loaded nowhere. */
  readonly error?: IntarsiaError;
  readonly notes: readonly string[];
}

export interface PlacementPorts {
  /** Other forms of the version that devices may be given. */
  readonly variants?: readonly HeldVariant[];
  readonly clock: Clock;
  readonly options: ModelRegistryOptions;
}

export const loadMsMaxDefault = 600_000;
/** A device that does not say how it is within this time is not chosen. */
const statusMsMax = 5_000;

/**
 * Never rejects: what fails is in the result.
 * @param previous Devices that serve an older artefact of this version; they are left alone when a load fails there.
 */
export async function placeVersion(
  placement: Placement,
  previous: readonly DeviceId[],
  ports: PlacementPorts,
): Promise<PlacementResult> {
  const { options } = ports;
  const chooser = new FormChooser(placement, ports.variants ?? [], ports.options.engine);
  const asked = await Promise.all(options.devices.map((device) => askHowItIs(device, ports)));
  const candidates = asked.map((device) => chooser.withBytes(device));
  const failures: { readonly device: DeviceId; readonly error: IntarsiaError }[] = [];
  const notes: string[] = [];
  const refusals: string[] = [];
  const { config, weightBytes, inputs, outputs } = placement;
  /** The form chosen, or the next best where it answers too far off there. */
  const loadBest = async (
    device: RegistryDevice,
    forms: Map<DeviceId, AllowedForm | undefined>,
  ): Promise<LoadOutcome> => {
    const { descriptor } = device;
    for (;;) {
      const form = forms.get(descriptor.id);
      const outcome = await load(device, chooser.placement(descriptor, form), previous, {
        ...ports,
        form,
        exact: placement,
      });
      if (form === undefined || !isRefusal(outcome)) return outcome;
      refusals.push(`${descriptor.id}: ${outcome.error.message}`);
      forms.set(descriptor.id, chooser.refuse(device, form));
    }
  };
  for (;;) {
    const full = new Set(failures.map(({ device }) => device));
    const plan = options.residency(
      { config, weightBytes, inputs, outputs },
      candidates.map((candidate) => (full.has(candidate.descriptor.id) ? { ...candidate, usable: false } : candidate)),
    );
    if (!plan.ok) return { devices: [], failures, forms: new Map(), error: failures[0]?.error ?? plan.error, notes };
    notes.push(...plan.notes);
    const chosen = options.devices.filter(({ descriptor }) => plan.devices.includes(descriptor.id));
    // The order of the plan is the order of preference.
    chosen.sort((a, b) => plan.devices.indexOf(a.descriptor.id) - plan.devices.indexOf(b.descriptor.id));
    const forms = new Map(chosen.map(({ descriptor }) => [descriptor.id, chooser.chosenFor(descriptor.id)]));
    const outcomes = await Promise.all(chosen.map((device) => loadBest(device, forms)));
    const devices: DeviceId[] = [];
    let isWorthAnother = chosen.length > 0;
    outcomes.forEach((outcome, index) => {
      const device = chosen[index]?.descriptor.id;
      if (device === undefined) return;
      if (outcome.ok) {
        devices.push(device);
        notes.push(...outcome.notes.map((note) => `${device}: ${note}`));
      } else {
        if (full.has(device) || !movableCodes.has(outcome.error.code)) isWorthAnother = false;
        failures.push({ device, error: outcome.error });
      }
    });
    if (devices.length > 0) {
      notes.push(...refusals, ...devices.flatMap((device) => chooser.noteOf(device)));
      return { devices, failures, forms: namesOf(devices, forms), notes };
    }
    if (!isWorthAnother) {
      const error =
        failures[0]?.error ?? intarsiaError('UNAVAILABLE', `no device was chosen for model '${config.name}'`);
      return { devices: [], failures, forms: new Map(), error, notes };
    }
  }
}

/** What a variant answers on a device decides whether it gets it. */
function isRefusal(outcome: LoadOutcome): outcome is LoadOutcome & { readonly ok: false } {
  return !outcome.ok && outcome.error.code === 'FAILED_PRECONDITION';
}

function namesOf(
  devices: readonly DeviceId[],
  forms: ReadonlyMap<DeviceId, AllowedForm | undefined>,
): ReadonlyMap<DeviceId, string> {
  return new Map(devices.map((device) => [device, forms.get(device)?.name ?? '']));
}

/** Devices that somebody else chose. */
export interface ImposedDevices {
  /** In order of preference; those in `kept` have the very same version already. */
  readonly devices: readonly DeviceId[];
  readonly kept: ReadonlySet<DeviceId>;
  /** Names of the variants that devices are to have, empty for the exact model; absent: the best for the device. */
  readonly forms: ReadonlyMap<DeviceId, string>;
}

/** Brings a version onto exactly these devices. Never rejects: what fails is in the result. */
export async function placeImposed(
  placement: Placement,
  { devices, kept, forms: wanted }: ImposedDevices,
  previous: readonly DeviceId[],
  ports: PlacementPorts,
): Promise<PlacementResult> {
  const failures: { readonly device: DeviceId; readonly error: IntarsiaError }[] = [];
  const notes: string[] = [];
  const loaded = new Set(kept);
  const chooser = new FormChooser(placement, ports.variants ?? [], ports.options.engine);
  const forms = new Map<DeviceId, AllowedForm | undefined>();
  await Promise.all(
    devices.map(async (id) => {
      if (kept.has(id)) return;
      const device = ports.options.devices.find(({ descriptor }) => descriptor.id === id);
      const outcome: LoadOutcome =
        device === undefined
          ? { ok: false, error: intarsiaError('NOT_FOUND', `this host has no device ${id}`, { device: id }) }
          : await loadImposed(device, wanted.get(id));
      if (outcome.ok) {
        loaded.add(id);
        notes.push(...outcome.notes.map((note) => `${id}: ${note}`));
      } else {
        failures.push({ device: id, error: outcome.error });
      }
    }),
  );
  async function loadImposed(device: RegistryDevice, name: string | undefined): Promise<LoadOutcome> {
    const { descriptor } = device;
    const form = name === undefined ? chooser.bestFor(descriptor) : chooser.named(name);
    if (form === undefined && name !== undefined && name !== '') {
      const { model, version } = placement;
      return {
        ok: false,
        error: intarsiaError(
          'NOT_FOUND',
          `variant ${name} of ${model}/${version} is not among the files that are here`,
          {
            variant: name,
          },
        ),
      };
    }
    forms.set(descriptor.id, form);
    return await load(device, chooser.placement(descriptor, form), previous, { ...ports, form, exact: placement });
  }
  const [first] = failures;
  return {
    devices: devices.filter((id) => loaded.has(id)),
    failures,
    forms: namesOf(
      [...forms.keys()].filter((id) => loaded.has(id)),
      forms,
    ),
    ...(loaded.size > 0 || first === undefined ? {} : { error: first.error }),
    notes,
  };
}

/** Failures of a device rather than of the model: another device may do better. */
const movableCodes: ReadonlySet<string> = new Set(['OUT_OF_MEMORY', 'DEVICE_UNAVAILABLE']);

async function askHowItIs({ descriptor, ref }: RegistryDevice, { clock }: PlacementPorts): Promise<ResidencyDevice> {
  try {
    const status = await ref.ask<DeviceStatus>((replyTo) => ({ type: 'status', replyTo }), {
      deadlineMs: clock.nowMs() + statusMsMax,
    });
    return residencyDevice(status);
  } catch {
    // Whatever the reason, a device that cannot say how it is cannot take a model now.
    return { descriptor, usable: false, memoryFreeBytes: 0 };
  }
}

/** What the residency policy looks at. Idle sessions count as free: the device evicts them when it needs the room. */
function residencyDevice({ device, health, sessions, queues }: DeviceStatus): ResidencyDevice {
  const busy = new Set(
    queues.filter((queue) => queue.queuedRequests > 0).map(({ model, version }) => `${model}/${version}`),
  );
  let busyBytes = 0;
  for (const { model, version, memoryBytes } of sessions) {
    if (busy.has(`${model}/${version}`)) busyBytes += memoryBytes;
  }
  return {
    descriptor: device,
    usable: health !== 'failed' && health !== 'draining',
    memoryFreeBytes: Math.max(0, device.memoryBytes - busyBytes),
  };
}

interface LoadPorts extends PlacementPorts {
  /** Undefined: the exact model. */
  readonly form: AllowedForm | undefined;
  readonly exact: Placement;
}

async function load(
  { descriptor, ref }: RegistryDevice,
  chosen: Placement,
  previous: readonly DeviceId[],
  ports: LoadPorts,
): Promise<LoadOutcome> {
  const { clock, options } = ports;
  const loadMsMax = options.loadMsMax ?? loadMsMaxDefault;
  const { placement, notes } = await examined(chosen, ports);
  try {
    const outcome = await ref.ask<LoadOutcome>((replyTo) => ({ type: 'load', placement, replyTo }), {
      deadlineMs: clock.nowMs() + loadMsMax,
    });
    return outcome.ok ? { ...outcome, notes: [...outcome.notes, ...notes] } : outcome;
  } catch (thrown) {
    // It may still come to load: nobody would use it.
    if (!previous.includes(descriptor.id)) {
      const { model, version } = placement;
      ref.tell({ type: 'unload', model, version, replyTo: { tell: () => 'accepted' } });
    }
    return { ok: false, error: asIntarsiaError(thrown) };
  }
}

/** A variant with what it is to be asked; as it is where nobody can say what the exact model answers. */
async function examined(
  placement: Placement,
  { form, exact, options: { examOf } }: LoadPorts,
): Promise<{ readonly placement: Placement; readonly notes: readonly string[] }> {
  if (form === undefined || examOf === undefined) return { placement, notes: [] };
  try {
    return { placement: { ...placement, exam: await examOf(exact, form.record) }, notes: [] };
  } catch (thrown) {
    const { message } = asIntarsiaError(thrown);
    return { placement, notes: [`variant ${form.name} is not compared here, its record counts: ${message}`] };
  }
}
