/**
 * Which forms of a model a device may have, best first: the exact one, and variants that were compared with it and timed on
 * such a device. The host that loads a model and the leader that finds places for it decide by the same rules.
 *
 * The configuration's parameter `intarsia_variants` decides: absent or `none`, only the exact model; `allow`, whatever was
 * found within its tolerance: first what is faster than the exact model, then the exact model, and what is slower only where
 * there is no room for it; names with commas between, the fastest of those, whether faster than the exact model or not.
 * `intarsia_variants_error_max` bounds the error further, as a share of the output's largest value.
 */
import { intarsiaError } from '../errors.js';
import type { ModelConfig } from '../model-config.js';
import type { VariantRecord, VariantRow } from './variant-record.js';

interface VariantWish {
  /** Undefined: all. */
  readonly names: ReadonlySet<string> | undefined;
  readonly errorMax: number;
}

export const variantsParameter = 'intarsia_variants';
export const variantErrorParameter = 'intarsia_variants_error_max';

/** What a configuration allows; undefined: the exact model only. @throws MODEL_INVALID on a parameter that is none. */
export function variantWish(config: ModelConfig): VariantWish | undefined {
  const text = config.parameters.get(variantsParameter)?.trim() ?? 'none';
  const limit = config.parameters.get(variantErrorParameter)?.trim();
  const errorMax = limit === undefined ? Infinity : Number(limit);
  if (limit === '' || !(errorMax >= 0)) {
    throw intarsiaError(
      'MODEL_INVALID',
      `parameter ${variantErrorParameter} is ${JSON.stringify(limit)}; it must be a number from 0`,
    );
  }
  if (text === 'none') return undefined;
  if (text === 'allow') return { names: undefined, errorMax };
  const names = text.split(',').map((name) => name.trim());
  if (names.some((name) => !/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$/.test(name))) {
    throw intarsiaError(
      'MODEL_INVALID',
      `parameter ${variantsParameter} is ${JSON.stringify(text.slice(0, 120))}; it must be none, allow, or names of variants with commas between`,
    );
  }
  return { names: new Set(names), errorMax };
}

export interface VariantCandidate {
  readonly name: string;
  readonly record: VariantRecord;
}

/** A variant that the model's configuration allows. */
export interface AllowedVariant extends VariantCandidate {
  /** By its name: it is taken whether it is faster than the exact model or not. */
  readonly isNamed: boolean;
  /** Kinds of devices on which it came near enough. */
  readonly providers: readonly string[];
}

/** What the configuration allows, whatever device is there. @throws MODEL_INVALID on a parameter that is none. */
export function allowedVariants<Candidate extends VariantCandidate>(
  candidates: readonly Candidate[],
  config: ModelConfig,
): readonly (Candidate & AllowedVariant)[] {
  const wish = variantWish(config);
  if (wish === undefined) return [];
  return candidates.flatMap((candidate) => {
    const { name, record } = candidate;
    if (wish.names?.has(name) === false || !hasSizesOf(record, config)) return [];
    const equal = record.rows.filter(({ verdict, errorShare }) => verdict === 'equal' && errorShare <= wish.errorMax);
    const providers = [...new Set(equal.map(({ provider }) => provider))];
    return providers.length === 0 ? [] : [{ ...candidate, isNamed: wish.names !== undefined, providers }];
  });
}

export interface FormDevice {
  readonly id: string;
  readonly provider: string;
  /** What the silicon is called, and its engine, such as `onnxruntime-node 1.30.0`; absent: unknown. */
  readonly name?: string;
  readonly engine?: string;
}

/** A form of the model that a device may have. */
export interface DeviceForm<Variant> {
  /** Undefined: the exact model. */
  readonly variant: Variant | undefined;
  /** How many times as fast as the exact model, as measured; 1 where that is not known. */
  readonly gain: number;
}

/** What the device may have, best first; the exact model is always among it. */
export function deviceForms<Variant extends AllowedVariant>(
  allowed: readonly Variant[],
  device: FormDevice,
): readonly DeviceForm<Variant>[] {
  const forms = allowed.flatMap((variant) => {
    const { record, providers, isNamed } = variant;
    if (!providers.includes(device.provider) || !isFor(record, device)) return [];
    const { runMs = Infinity, exactRunMs } = rowOf(record, device.provider) ?? {};
    // A server that holds a foreign artefact need not hold the exact model.
    const isFaster = runMs < (exactRunMs ?? Infinity) || (record.kind === 'foreign' && exactRunMs === undefined);
    const gain = exactRunMs === undefined || !(runMs > 0 && runMs < Infinity) ? 1 : exactRunMs / runMs;
    return [{ form: { variant, gain }, isFirst: isNamed || isFaster, runMs }];
  });
  // Equal ones stay in their order.
  forms.sort((a, b) => (a.runMs === b.runMs ? 0 : a.runMs - b.runMs));
  const first = forms.filter(({ isFirst }) => isFirst);
  const last = forms.filter(({ isFirst }) => !isFirst);
  return [...first.map(({ form }) => form), { variant: undefined, gain: 1 }, ...last.map(({ form }) => form)];
}

export function rowOf({ rows }: VariantRecord, provider: string): VariantRow | undefined {
  return rows.find((row) => row.provider === provider && row.verdict === 'equal');
}

function isFor({ kind, boundTo, remote }: VariantRecord, { id, provider, name, engine }: FormDevice): boolean {
  // A foreign artefact is held by the server of one remote device.
  if (kind === 'foreign') return provider === 'remote' && remote?.device === id;
  return kind !== 'ort' || (provider === 'cpu' && boundTo?.engine === engine && boundTo?.processor === name);
}

function hasSizesOf({ kind, shapes }: VariantRecord, { inputs, maxBatchSize }: ModelConfig): boolean {
  if (kind !== 'fixed') return true;
  return inputs.every(({ name, dims, reshape }) => {
    const own = reshape ?? dims;
    const taken = maxBatchSize === 0 ? own : [maxBatchSize === 1 ? 1 : -1, ...own];
    return shapes?.[name]?.join() === taken.join();
  });
}
