/**
 * The `split:` of a deployment file: where a model is to be cut, and what each stage wants of its place.
 *
 *     split:
 *       stages: 3                     # of equal estimated work; or cuts: [12, 40]; or plan: plan.json of `intarsia plan --json`
 *       compression: none             # or fp16, int8: of activations between stages
 *       tolerance: 0.001              # largest relative error that the gate lets pass; default: the gate's own
 *       standby: 1                    # further replicas of every stage
 *       replan: true                  # the grid plans again when stages drift; default false
 *
 * With a list instead of a number, `stages` says for each one `constraints`, `standby` and `memory`. What the store holds
 * is not this but the SplitSpec that was made of it: it has an id.
 */
import { artifactDigest } from '../ids.js';
import {
  splitCompressions,
  splitIdOf,
  splitStagesMax,
  type SplitCompression,
  type SplitShard,
  type SplitSpec,
  type SplitValue,
} from '../split/split-spec.js';
import {
  checked,
  constraintsOf,
  isRecord,
  listOf,
  memoryOf,
  onlyFields,
  oneOf,
  textOf,
  wholeOf,
} from './file-place.js';
import type { Place } from './file-place.js';

const standbyMax = 100;
const positionMax = 2 ** 31;
const dataTypeMax = 1000;
const rankMax = 64;

/** What a file says of a stage; absent: nothing. */
export type StageWish = Partial<SplitShard>;

/** A split that is to be made of the model's files. */
export interface SplitWish {
  /** Exactly one of the two. */
  readonly cuts?: readonly number[];
  readonly stages?: number;
  /** Of the model that the cuts were made for; absent: any. */
  readonly digest?: string;
  /** By stage, or none. */
  readonly shards: readonly StageWish[];
  readonly compression: SplitCompression;
  readonly toleranceRelative?: number;
  readonly replan?: true;
}

/** A split as files and the store have it. @throws CONFIG_INVALID with path. */
export function splitOfFile(value: unknown, at: Place): { readonly spec: SplitSpec } | { readonly wish: SplitWish } {
  if (!isRecord(value)) throw at.wrong('a map of fields', value);
  return value['id'] === undefined ? { wish: wishOf(value, at) } : { spec: specOf(value, at) };
}

/** The wish as a file would have it. */
export function splitWishData({ shards, toleranceRelative, stages, ...rest }: SplitWish): object {
  return {
    ...rest,
    ...(shards.length > 0 ? { stages: shards } : stages === undefined ? {} : { stages }),
    ...(toleranceRelative === undefined ? {} : { tolerance: toleranceRelative }),
  };
}

const wishFields = ['cuts', 'stages', 'plan', 'digest', 'compression', 'tolerance', 'standby', 'replan'] as const;

function wishOf(value: Readonly<Record<string, unknown>>, at: Place): SplitWish {
  onlyFields(value, wishFields, at);
  const { plan } = value;
  if (plan !== undefined) return planWish(value, plan, at);
  const { cuts, stages } = value;
  if (cuts === undefined && stages === undefined) throw at.wrong('one of cuts, stages and plan', 'none of them');
  const positions = cuts === undefined ? undefined : cutsOf(cuts, at.in('cuts'));
  const listed = Array.isArray(stages) ? stagesOf(stages, at.in('stages')) : [];
  const count = Array.isArray(stages) || stages === undefined ? listed.length : stageCount(stages, at.in('stages'));
  if (positions !== undefined && stages !== undefined && count !== positions.length + 1) {
    throw at.in('stages').wrong(`${positions.length + 1} stages, one more than cuts`, count);
  }
  const total = positions === undefined ? count : positions.length + 1;
  return {
    ...(positions === undefined ? { stages: count } : { cuts: positions }),
    ...(value['digest'] === undefined ? {} : { digest: digestOf(value['digest'], at.in('digest')) }),
    ...common(value, at, listed, total),
  };
}

/** The report of `intarsia plan --json`, or what it says under `split`. */
function planWish(value: Readonly<Record<string, unknown>>, plan: unknown, at: Place): SplitWish {
  const place = at.in('plan');
  if (value['cuts'] !== undefined) throw at.wrong('at most one of cuts and plan', 'both of them');
  if (!isRecord(plan)) throw place.wrong('the report of `intarsia plan --json`', plan);
  const { split } = plan;
  if (split === undefined) {
    const why = typeof plan['reason'] === 'string' && plan['reason'] !== '' ? plan['reason'] : 'not to split is better';
    throw place.wrong('a plan that splits the model', why);
  }
  if (!isRecord(split)) throw place.in('split').wrong('a map of fields', split);
  const { cuts, digest, shards, compression } = specOf(split, place.in('split'));
  const { stages } = value;
  const listed =
    stages === undefined ? shards : stagesOf(listOf(stages, at.in('stages'), splitStagesMax), at.in('stages'));
  if (listed.length !== cuts.length + 1) {
    throw at.in('stages').wrong(`${cuts.length + 1} stages, as the plan has`, listed.length);
  }
  return { cuts, digest, ...common({ compression, ...value }, at, listed, listed.length) };
}

function common(
  value: Readonly<Record<string, unknown>>,
  at: Place,
  listed: readonly StageWish[],
  total: number,
): Pick<SplitWish, 'shards' | 'compression' | 'toleranceRelative' | 'replan'> {
  const { standby, tolerance } = value;
  const every = standby === undefined ? 0 : wholeOf(standby, at.in('standby'), [0, standbyMax]);
  const shards =
    every === 0 ? listed : Array.from({ length: total }, (_, shard) => ({ standby: every, ...listed[shard] }));
  if (tolerance !== undefined && !(typeof tolerance === 'number' && tolerance > 0 && tolerance <= 1)) {
    throw at.in('tolerance').wrong('a relative error above 0, at most 1', tolerance);
  }
  return {
    shards,
    compression: oneOf(value['compression'] ?? 'none', splitCompressions, at.in('compression')),
    ...(tolerance === undefined ? {} : { toleranceRelative: tolerance }),
    ...replanOf(value, at),
  };
}

function replanOf(value: Readonly<Record<string, unknown>>, at: Place): { readonly replan?: true } {
  const { replan } = value;
  if (replan !== undefined && typeof replan !== 'boolean') throw at.in('replan').wrong('true or false', replan);
  return replan === true ? { replan } : {};
}

function specOf(value: Readonly<Record<string, unknown>>, at: Place): SplitSpec {
  onlyFields(
    value,
    ['format', 'id', 'digest', 'cuts', 'shards', 'compression', 'splitBatches', 'values', 'replan', 'why'],
    at,
  );
  const why = value['why'] === undefined ? undefined : textOf(value['why'], at.in('why'));
  if (value['format'] !== 1) throw at.in('format').wrong('1', value['format']);
  const cuts = cutsOf(value['cuts'], at.in('cuts'));
  const digest = digestOf(value['digest'], at.in('digest'));
  const compression = oneOf(value['compression'], splitCompressions, at.in('compression'));
  const listed = stagesOf(listOf(value['shards'], at.in('shards'), splitStagesMax), at.in('shards'));
  if (listed.length !== cuts.length + 1) throw at.in('shards').wrong(`${cuts.length + 1} shards`, listed.length);
  const id = splitIdOf({ digest, cuts, compression });
  if (value['id'] !== id)
    throw at.in('id').wrong(`${id}, which follows from digest, cuts and compression`, value['id']);
  const { splitBatches } = value;
  if (splitBatches !== undefined && typeof splitBatches !== 'boolean') {
    throw at.in('splitBatches').wrong('true or false', splitBatches);
  }
  const shards = listed.map((shard) => ({ memoryBytes: 0, ...shard }));
  const { values } = value;
  return {
    ...{ format: 1, id, digest, cuts, shards, compression },
    ...(splitBatches === undefined ? {} : { splitBatches }),
    ...replanOf(value, at),
    ...(why === undefined ? {} : { why }),
    ...(values === undefined ? {} : { values: valuesOf(values, at.in('values')) }),
  };
}

function valuesOf(value: unknown, at: Place): NonNullable<SplitSpec['values']> {
  if (!isRecord(value)) throw at.wrong('a map of types', value);
  const types = Object.entries(value).map(([name, type]): [string, SplitValue] => {
    const place = at.in(name);
    if (!isRecord(type)) throw place.wrong('a type', type);
    onlyFields(type, ['dataType', 'shape'], place);
    const dataType = wholeOf(type['dataType'], place.in('dataType'), [1, dataTypeMax]);
    if (type['shape'] === undefined) return [name, { dataType }];
    const sizes = listOf(type['shape'], place.in('shape'), rankMax);
    return [
      name,
      { dataType, shape: sizes.map((size, axis) => wholeOf(size, place.in('shape').in(axis), [-1, positionMax])) },
    ];
  });
  return Object.fromEntries(types);
}

function cutsOf(value: unknown, at: Place): readonly number[] {
  const list = listOf(value, at, splitStagesMax - 1);
  if (list.length === 0) throw at.wrong('at least one position', value);
  let before = 0;
  return list.map((one, index) => {
    before = wholeOf(one, at.in(index), [before + 1, positionMax]);
    return before;
  });
}

function stageCount(value: unknown, at: Place): number {
  return wholeOf(value, at, [2, splitStagesMax]);
}

function stagesOf(list: readonly unknown[], at: Place): readonly StageWish[] {
  if (list.length < 2 || list.length > splitStagesMax) {
    throw at.wrong(`2 to ${splitStagesMax} stages`, `${list.length}`);
  }
  return list.map((value, index): StageWish => {
    const place = at.in(index);
    if (!isRecord(value)) throw place.wrong('a map of fields', value);
    onlyFields(value, ['constraints', 'standby', 'memory', 'memoryBytes', 'prefer', 'plannedMs'], place);
    const memoryBytes = memoryOf(value, place);
    const { standby, prefer, plannedMs } = value;
    if (plannedMs !== undefined && !(typeof plannedMs === 'number' && plannedMs > 0 && plannedMs < Infinity)) {
      throw place.in('plannedMs').wrong('milliseconds above 0', plannedMs);
    }
    return {
      ...(plannedMs === undefined ? {} : { plannedMs }),
      ...(prefer === undefined ? {} : { prefer: textOf(prefer, place.in('prefer')) }),
      ...(memoryBytes === 0 ? {} : { memoryBytes }),
      ...(value['constraints'] === undefined
        ? {}
        : { constraints: constraintsOf(value['constraints'], place.in('constraints')) }),
      ...(standby === undefined ? {} : { standby: wholeOf(standby, place.in('standby'), [0, standbyMax]) }),
    };
  });
}

function digestOf(value: unknown, at: Place): SplitSpec['digest'] {
  return checked(at, textOf(value, at), artifactDigest);
}
