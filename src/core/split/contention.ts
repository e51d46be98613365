/**
 * How much longer devices take while others run beside them: cores, caches and memory that they share. Measured with the
 * shards of a plan all running at once (contention records of the profile database), never computed from what devices are.
 *
 * Best first: the same shard beside the same devices; other shards beside the same devices, their geometric mean; what each
 * of the devices costs alone, added up. Where nothing was measured nobody disturbs anybody, and `isMeasured` says so.
 */

export interface MeasuredContention {
  /** Kind of the device, such as `cpu 1`: provider and threads. */
  readonly kind: string;
  /** Kinds of the other devices that ran, in any order. */
  readonly beside: readonly string[];
  readonly from: number;
  readonly to: number;
  readonly batch: number;
  /** Time in company by the time alone. */
  readonly slowdown: number;
}

type ShardRun = Pick<MeasuredContention, 'from' | 'to' | 'batch'>;

export interface Slowdown {
  readonly factor: number;
  readonly isMeasured: boolean;
}

const nodesMax = 2 ** 20;
const alone: Slowdown = { factor: 1, isMeasured: true };
const unknown: Slowdown = { factor: 1, isMeasured: false };

export class Contention {
  /** By kind and company, then by shard. */
  readonly #factors = new Map<string, Map<number, number>>();

  constructor(measured: readonly MeasuredContention[]) {
    for (const { kind, beside, from, to, batch, slowdown } of measured) {
      if (!(slowdown > 0)) continue;
      const key = companyKey(kind, beside);
      const shards = this.#factors.get(key) ?? new Map<number, number>();
      this.#factors.set(key, shards);
      shards.set(shardKey({ from, to, batch }), slowdown);
    }
  }

  /** Of a shard on a kind of device while others run. */
  of(kind: string, beside: readonly string[], shard: ShardRun): Slowdown {
    return this.beside(kind, beside)(shard);
  }

  /** Whether that very shard was measured in that company. */
  has(kind: string, beside: readonly string[], shard: ShardRun): boolean {
    return this.#factors.get(companyKey(kind, beside))?.has(shardKey(shard)) === true;
  }

  /** `of` for many shards in the same company. */
  beside(kind: string, beside: readonly string[]): (shard: ShardRun) => Slowdown {
    if (beside.length === 0) return () => alone;
    const together = this.#factors.get(companyKey(kind, beside));
    if (together !== undefined) {
      const mean = geometricMean([...together.values()]);
      return (shard) => ({ factor: together.get(shardKey(shard)) ?? mean, isMeasured: true });
    }
    let sum = 1;
    for (const other of beside) {
      const pair = this.#factors.get(companyKey(kind, [other]));
      if (pair === undefined) return () => unknown;
      sum += geometricMean([...pair.values()]) - 1;
    }
    const added: Slowdown = { factor: Math.max(1, sum), isMeasured: true };
    return () => added;
  }
}

function companyKey(kind: string, beside: readonly string[]): string {
  return JSON.stringify([kind, ...[...beside].sort()]);
}

/** A number, since searches ask for millions: nodes below 2²⁰, batches below 2¹². */
function shardKey({ from, to, batch }: ShardRun): number {
  return (batch * nodesMax + from) * nodesMax + to;
}

function geometricMean(values: readonly number[]): number {
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}
