/**
 * How much longer devices take while others run beside them: cores, caches and memory that they share. Measured with the
 * shards of a plan all running at once (contention records of the profile database), never computed from what devices are.
 *
 * Best first: the same shard beside the same devices, its pace there; other shards beside the same devices, the geometric
 * mean of their slowdowns; what each of the devices costs alone, added up. Where nothing was measured nobody disturbs anybody,
 * and `isMeasured` says so.
 */

export interface MeasuredContention {
  /** Kind of the device, such as `cpu 1`: provider and threads. */
  readonly kind: string;
  /** Kinds of the other devices that ran, in any order. */
  readonly beside: readonly string[];
  readonly from: number;
  readonly to: number;
  readonly batch: number;
  /** From one answer to the next in company, and a run alone right before; ms. */
  readonly paceMs: number;
  readonly aloneMs: number;
}

interface Pace {
  readonly paceMs: number;
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
  readonly #companies = new Map<string, Map<number, Pace>>();

  constructor(measured: readonly MeasuredContention[]) {
    for (const { kind, beside, from, to, batch, paceMs, aloneMs } of measured) {
      if (!(paceMs > 0 && aloneMs > 0)) continue;
      const key = companyKey(kind, beside);
      const shards = this.#companies.get(key) ?? new Map<number, Pace>();
      this.#companies.set(key, shards);
      shards.set(shardKey({ from, to, batch }), { paceMs, slowdown: paceMs / aloneMs });
    }
  }

  get isEmpty(): boolean {
    return this.#companies.size === 0;
  }

  /** Whether that very shard was measured in that company. */
  has(kind: string, beside: readonly string[], shard: ShardRun): boolean {
    return this.#companies.get(companyKey(kind, beside))?.has(shardKey(shard)) === true;
  }

  /** Of shards on a kind of device while others run; each with what it takes alone, ms. */
  beside(kind: string, beside: readonly string[]): (shard: ShardRun, ms: number) => Slowdown {
    if (beside.length === 0) return () => alone;
    const together = this.#companies.get(companyKey(kind, beside));
    if (together !== undefined) {
      const others: Slowdown = { factor: meanSlowdown(together), isMeasured: true };
      return (shard, ms) => {
        const known = together.get(shardKey(shard));
        // Its pace is what was seen; its time alone is of another moment.
        return known === undefined
          ? others
          : { factor: ms > 0 && ms < Infinity ? known.paceMs / ms : known.slowdown, isMeasured: true };
      };
    }
    let sum = 1;
    for (const other of beside) {
      const pair = this.#companies.get(companyKey(kind, [other]));
      if (pair === undefined) return () => unknown;
      sum += meanSlowdown(pair) - 1;
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

/** The geometric mean. */
function meanSlowdown(shards: ReadonlyMap<number, Pace>): number {
  let sum = 0;
  for (const { slowdown } of shards.values()) sum += Math.log(slowdown);
  return Math.exp(sum / shards.size);
}
