/**
 * Which form of a model a device gets: the exact one, or a variant that was compared with it and timed on such a device.
 *
 * The configuration's parameter `intarsia_variants` decides: absent or `none`, only the exact model; `allow`, whatever was
 * found within its tolerance and faster than the exact model; names with commas between, the fastest of those, whether
 * faster than the exact model or not. `intarsia_variants_error_max` bounds the error further, as a share of the output's
 * largest value. Pure: names and numbers in, a name out.
 */
import type { DeviceDescriptor } from '#core/device.js';
import { intarsiaError } from '#core/errors.js';
import type { ModelConfig } from '#core/model-config.js';
import type { VariantRecord } from '#core/variants/variant-record.js';

export interface VariantWish {
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

export interface VariantQuestion {
  readonly config: ModelConfig;
  readonly wish: VariantWish;
  readonly device: DeviceDescriptor;
  /** Engine of the CPU's executors here, such as `onnxruntime-node 1.30.0`; empty: unknown. */
  readonly engine: string;
}

/** The variant that the device gets; undefined: the exact model. */
export function chooseVariant<Candidate extends VariantCandidate>(
  candidates: readonly Candidate[],
  question: VariantQuestion,
): Candidate | undefined {
  const { wish, device } = question;
  let best: Candidate | undefined;
  let bestMs = Infinity;
  for (const candidate of candidates) {
    const { name, record } = candidate;
    if (wish.names?.has(name) === false || !isUsable(record, question)) continue;
    const row = record.rows.find(({ provider, verdict }) => provider === device.provider && verdict === 'equal');
    if (row === undefined || row.errorShare > wish.errorMax) continue;
    const { runMs = Infinity, exactRunMs = Infinity } = row;
    // A server that holds a foreign artefact need not hold the exact model.
    const isFaster = runMs < exactRunMs || (record.kind === 'foreign' && row.exactRunMs === undefined);
    if (wish.names === undefined && !isFaster) continue;
    if (best !== undefined && runMs >= bestMs) continue;
    best = candidate;
    bestMs = runMs;
  }
  return best;
}

function isUsable(
  { kind, shapes, boundTo, remote }: VariantRecord,
  { config, device, engine }: VariantQuestion,
): boolean {
  switch (kind) {
    case 'foreign':
      // Held by the server of one remote device.
      return device.provider === 'remote' && remote?.device === device.id;
    case 'ort':
      return device.provider === 'cpu' && boundTo?.engine === engine && boundTo.processor === device.name;
    case 'fixed':
      return config.inputs.every(({ name, dims, reshape }) => {
        const own = reshape ?? dims;
        const taken = config.maxBatchSize === 0 ? own : [config.maxBatchSize === 1 ? 1 : -1, ...own];
        return shapes?.[name]?.join() === taken.join();
      });
    case 'fp16':
    case 'int8':
      return true;
  }
}
