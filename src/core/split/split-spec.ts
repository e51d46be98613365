/**
 * A split as hosts are told it: enough to make any of its shards from the model's own files, bit for bit the same
 * everywhere, because the cutter is deterministic. Part of deployments, of editions and of what hosts are assigned.
 */
import type { PlacementConstraints } from '../grid/constraints.js';
import type { ArtifactDigest, ModelName } from '../ids.js';
import { RandomStream } from '../random.js';

export const splitCompressions = ['none', 'fp16', 'int8'] as const;
/** What becomes of single-precision activations between stages. */
export type SplitCompression = (typeof splitCompressions)[number];

export interface SplitShard {
  /** What it takes on a device, bytes. */
  readonly memoryBytes: number;
  /** Beside those of the deployment. */
  readonly constraints?: PlacementConstraints;
  /** Further replicas of this shard alone, in the whole deployment. Default 0. */
  readonly standby?: number;
  /** `host/device` where it should be while that takes it: the speed of that place was counted on. */
  readonly prefer?: string;
  /** What the plan that it was cut by expects it to take in the engine, ms for an item. */
  readonly plannedMs?: number;
}

/** Type of a value that crosses between stages, in ONNX's numbers. */
export interface SplitValue {
  readonly dataType: number;
  /** -1 where a size may vary; absent where even the rank is not known. */
  readonly shape?: readonly number[];
}

export interface SplitSpec {
  readonly format: 1;
  /** `splitIdOf` the three fields that decide what is computed. */
  readonly id: string;
  /** Of the artefact it was made from. */
  readonly digest: ArtifactDigest;
  /** Ascending positions in the sorted graph; one less than shards. */
  readonly cuts: readonly number[];
  readonly shards: readonly SplitShard[];
  readonly compression: SplitCompression;
  /** Planned again by the grid when stages drift from what is expected of them. */
  readonly replan?: true;
  /** Why it is cut as it is, where the grid planned it; in events. */
  readonly why?: string;
  /** Whether shards may be served in batches; absent: no. The gate finds out. */
  readonly splitBatches?: boolean;
  /**
   * Types of the values that cross, by name, as the gate's engine told them. Hosts that have them need not load the whole
   * model to make a shard; absent: they do.
   */
  readonly values?: Readonly<Record<string, SplitValue>>;
}

/** Stages at most: a cut has one position less. */
export const splitStagesMax = 64;

/** Ten hexadecimal digits: another digest, cut or compression has another id. */
export function splitIdOf({ digest, cuts, compression }: Pick<SplitSpec, 'digest' | 'cuts' | 'compression'>): string {
  const draw = new RandomStream(`split ${digest} ${cuts.join(',')} ${compression}`);
  const digits = (): string =>
    draw
      .below(2 ** 20)
      .toString(16)
      .padStart(5, '0');
  return `${digits()}${digits()}`;
}

/** The name under which a device knows a shard; clients never see it. */
export function shardModelName(model: ModelName, splitId: string, shard: number): ModelName {
  return `${model}~${splitId}~${shard}` as ModelName;
}

/** The name under which devices, registries and routing tables have what was assigned: of a shard, its own. */
export function pieceModelName({
  model,
  split,
  shard,
}: {
  readonly model: ModelName;
  readonly split?: SplitSpec | string;
  readonly shard?: number;
}): ModelName {
  if (split === undefined) return model;
  return shardModelName(model, typeof split === 'string' ? split : split.id, shard ?? 0);
}

/** What a shard's name says; undefined for the name of a whole model. */
export function readShardName(
  name: string,
): { readonly model: ModelName; readonly split: string; readonly shard: number } | undefined {
  const [, model, split, shard] = /^(.+)~([0-9a-f]{10})~([0-9]{1,2})$/.exec(name) ?? [];
  if (model === undefined || split === undefined) return undefined;
  return { model: model as ModelName, split, shard: Number(shard) };
}
