/** Forms of a model that a device may be given a copy in, with what each takes and why one was chosen before another. */
import { formatBytes } from '../units.js';
import { deviceForms, rowOf } from '../variants/variant-choice.js';
import type { AssignedForm, GridDevice } from './records.js';
import type { VariantVerification } from './variant-verification.js';

export interface PlacementForm {
  /** Name of a variant; empty: the exact model. */
  readonly variant: string;
  readonly bytes: number;
  /** How many times as fast as the exact model on such a device. */
  readonly gain: number;
  /** Why it comes before the others; empty for the exact model. */
  readonly reason: string;
}

/** What a device may be given, best first. */
export type FormsOf = (device: GridDevice) => readonly PlacementForm[];

export interface FormsInput {
  /** Of a copy of the exact model, by its manifest. */
  readonly exactBytes: number;
  /** What the deployment says a copy takes, in place of it; 0: nothing. Variants are taken to need the same part of that. */
  readonly saidBytes: number;
  readonly variants: readonly VariantVerification[];
}

export function formsOf({ exactBytes, saidBytes, variants }: FormsInput): FormsOf {
  const scale = saidBytes > 0 && exactBytes > 0 ? saidBytes / exactBytes : 1;
  return (device) =>
    deviceForms(variants, device).map(({ variant, gain }) => {
      if (variant === undefined) return { variant: '', bytes: Math.ceil(exactBytes * scale), gain, reason: '' };
      const { name, memoryBytes } = variant;
      return { variant: name, bytes: Math.ceil(memoryBytes * scale), gain, reason: reasonOf(variant, device) };
    });
}

function reasonOf({ isNamed, record, name }: VariantVerification, { provider }: GridDevice): string {
  const { runMs, exactRunMs } = rowOf(record, provider) ?? {};
  const times =
    runMs === undefined || exactRunMs === undefined
      ? ''
      : `${runMs.toPrecision(3)} ms on ${provider}, the exact model ${exactRunMs.toPrecision(3)} ms`;
  if (isNamed) return `${name}, as the configuration names it${times === '' ? '' : ` (${times})`}`;
  return times === '' ? name : `${name}: ${times}`;
}

/** The best form that fits into so many bytes, as it is written down; undefined when none fits. */
export function fittingForm(
  forms: readonly PlacementForm[],
  device: GridDevice,
  freeBytes: number,
): { readonly form: PlacementForm; readonly assigned: AssignedForm } | undefined {
  const form = forms.find(({ bytes }) => bytes <= freeBytes);
  if (form === undefined) return undefined;
  const { variant } = form;
  const [best] = forms;
  if (best === undefined || best === form) return { form, assigned: { variant, reason: form.reason } };
  const missing = best.bytes - freeBytes;
  const what = best.variant === '' ? 'the exact model' : best.variant;
  const reason = `${variant === '' ? 'the exact model' : variant}, because ${what} takes ${best.bytes} bytes (${formatBytes(best.bytes)}) and ${device.id} has ${freeBytes} free: ${missing} bytes missing`;
  return { form, assigned: { variant, reason } };
}

/** The form that takes the least. */
export function smallestForm(forms: readonly PlacementForm[]): PlacementForm | undefined {
  return forms.reduce<PlacementForm | undefined>(
    (least, form) => (least === undefined || form.bytes < least.bytes ? form : least),
    undefined,
  );
}
