/**
 * In which form a device gets a version: the exact model, or one of the variants that its configuration allows. Where the
 * host chooses, it is the best form for which the device has room.
 */
import type { DeviceDescriptor } from '#core/device.js';
import type { DeviceId } from '#core/ids.js';
import { estimateSessionBytes } from '#core/memory-ledger.js';
import { formatBytes } from '#core/units.js';
import { allowedVariants, deviceForms, type AllowedVariant } from '#core/variants/variant-choice.js';
import { variantGateText } from '#core/variants/variant-record.js';
import type { Placement } from '#actors/device/protocol.js';
import type { ResidencyDevice } from '#policies/residency/residency-first-fit.js';
import type { ModelRegistryOptions, RegistryDevice } from './options.js';
import type { HeldVariant } from './read-variants.js';

/** A variant that may be loaded. */
export type AllowedForm = HeldVariant & AllowedVariant;

export class FormChooser {
  readonly #exact: Placement;
  readonly #engine: string;
  readonly #allowed: readonly AllowedForm[];
  readonly #refused = new Set<string>();
  readonly #chosen = new Map<DeviceId, { readonly form: AllowedForm | undefined; readonly note: string }>();

  constructor(exact: Placement, variants: readonly HeldVariant[], engine: ModelRegistryOptions['engine']) {
    this.#exact = exact;
    this.#engine = engine ?? '';
    this.#allowed = variants.length === 0 ? [] : allowedVariants(variants, exact.config);
  }

  /** The device with the weights of the form it would get: the best that fits, or the smallest where none does. */
  withBytes(device: ResidencyDevice): ResidencyDevice {
    const { descriptor, memoryFreeBytes } = device;
    const forms = this.#formsOn(descriptor).map((form) => ({ form, bytes: this.#bytesOf(form) }));
    const [best] = forms;
    if (best === undefined || forms.length < 2) return device;
    const found =
      forms.find(({ bytes }) => bytes <= memoryFreeBytes) ??
      forms.reduce((least, one) => (one.bytes < least.bytes ? one : least));
    const note =
      found === best
        ? ''
        : `${descriptor.id} gets ${nameOf(found.form)}, because ${nameOf(best.form)} takes ${best.bytes} bytes (${formatBytes(best.bytes)}) and ${memoryFreeBytes} are free: ${best.bytes - memoryFreeBytes} bytes missing`;
    this.#chosen.set(descriptor.id, { form: found.form, note });
    return { ...device, weightBytes: this.#weightsOf(found.form) };
  }

  /** The device is not given the form again; answers the next best, whether it has room or not. */
  refuse({ descriptor }: Pick<RegistryDevice, 'descriptor'>, form: AllowedForm): AllowedForm | undefined {
    this.#refused.add(refusal(descriptor.id, form));
    return this.bestFor(descriptor);
  }

  /** What `withBytes` found for the device; undefined: the exact model. */
  chosenFor(device: DeviceId): AllowedForm | undefined {
    return this.#chosen.get(device)?.form;
  }

  /** Why it is not the best form, where it is not. */
  noteOf(device: DeviceId): readonly string[] {
    const note = this.#chosen.get(device)?.note ?? '';
    return note === '' ? [] : [note];
  }

  /** Without regard to room. */
  bestFor(device: DeviceDescriptor): AllowedForm | undefined {
    return this.#formsOn(device)[0];
  }

  named(name: string): AllowedForm | undefined {
    return this.#allowed.find((variant) => variant.name === name);
  }

  /** What the device is asked to load. */
  placement({ provider }: DeviceDescriptor, form: AllowedForm | undefined): Placement {
    const exact = this.#exact;
    if (form === undefined) return exact;
    const { name, artifact = exact.artifact, weightBytes, record } = form;
    const { remote } = record;
    // What ONNX Runtime has optimised already is loaded as it is.
    const optimization = record.kind === 'ort' ? 'disabled' : exact.optimization;
    return {
      ...exact,
      ...{ artifact, weightBytes, optimization, variant: name, exactDigest: exact.artifact.digest },
      variantGate: variantGateText(record, provider),
      ...(remote === undefined ? {} : { remoteModel: { name: remote.model, version: remote.version } }),
    };
  }

  /** Best first; undefined: the exact model. */
  #formsOn({ id, provider, name }: DeviceDescriptor): readonly (AllowedForm | undefined)[] {
    const device = { id, provider, name, engine: this.#engine };
    const allowed = this.#allowed.filter((form) => !this.#refused.has(refusal(id, form)));
    return deviceForms(allowed, device).map(({ variant }) => variant);
  }

  #weightsOf(form: AllowedForm | undefined): number {
    return form?.weightBytes ?? this.#exact.weightBytes;
  }

  #bytesOf(form: AllowedForm | undefined): number {
    const { inputs, outputs, config } = this.#exact;
    return estimateSessionBytes({ weightBytes: this.#weightsOf(form), inputs, outputs, items: config.maxBatchSize });
  }
}

function refusal(device: DeviceId, { name }: AllowedForm): string {
  return `${device} ${name}`;
}

function nameOf(form: AllowedForm | undefined): string {
  return form === undefined ? 'the exact model' : `variant ${form.name}`;
}
