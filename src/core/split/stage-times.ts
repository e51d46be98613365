/**
 * How long any shard takes on a device: measured where it was, otherwise estimated, always with how sure that is.
 *
 * Three sources, best first:
 * 1. The shard itself was measured: that time. ± is the standard error of its runs, at least 2 %.
 * 2. Measured pieces tile the chain: their times, spread over their nodes as times of nodes have them where those were
 *    measured, else as the roofline does, less what a run costs for each piece boundary inside the shard (the pieces are
 *    together slower than the whole by that much). ± 10 %. Times of nodes alone are one such piece.
 * 3. The roofline of the silicon, times the correction that its measurements so far suggest.
 *
 * All deviations are of logarithms (0.1: about 10 %). Of n measured shards with log ratios r to the roofline the correction
 * is Σr / (n + w²/s²) and its deviation √(1 / (1/s² + n/w²) + w²): s says how far the roofline of the silicon may be off
 * altogether, w how much shapes differ. Without measurements that is √(s² + w²), with many it goes to w.
 */

/** What the roofline needs to know of silicon. */
export interface Silicon {
  readonly flopsPerSecond: number;
  readonly bytesPerSecond: number;
  /** Milliseconds to launch one operator. */
  readonly operatorMs: number;
  /** Deviation of the logarithm of real times from this roofline, before anything was measured. */
  readonly deviation: number;
}

/** Share of the peaks that real networks reach, as for emulated devices. */
const computeShare = 0.6;
const bandwidthShare = 0.8;
/** How much shapes differ in what they make of a device. */
const shapeDeviation = Math.log(1.25);
/** Between pieces that were measured and shards made of them. */
const piecesDeviation = 0.1;
const measuredDeviationMin = 0.02;

/** A time that was measured. Positions are those of nodes in the sorted graph. */
export interface MeasuredShard {
  readonly from: number;
  readonly to: number;
  readonly batch: number;
  /** Inside the engine, one run; infinite where the device does not run the shard. */
  readonly ms: number;
  /** Standard error of `ms` by `ms`. */
  readonly relativeError: number;
}

/** A time with its deviation. */
export interface KnownMs {
  readonly ms: number;
  readonly source: 'measured' | 'pieces' | 'estimated';
  /** Standard deviation by the value; of the logarithm where it is large. */
  readonly deviation: number;
}

/** Work up to each node, and weights of ranges: what the roofline asks of a model. Batch 1. */
export interface ChainWork {
  readonly nodes: number;
  /** By position: sums over the nodes before it. */
  readonly flops: Float64Array;
  readonly activationBytes: Float64Array;
  readonly operators: Float64Array;
  readonly weightBytes: (from: number, to: number) => number;
}

/** Times of all shards of one model on one kind of device, in runs of one batch size. */
export class StageTimes {
  readonly #work: ChainWork;
  readonly #silicon: Silicon;
  readonly #batch: number;
  /** By first node, then by end. */
  readonly #exact = new Map<number, Map<number, MeasuredShard>>();
  /** Milliseconds up to each node where pieces tile the chain. */
  readonly #tiled: Float64Array | undefined;
  /** Piece boundaries before each position, and what one costs. */
  readonly #boundaries: Float64Array;
  readonly #boundaryMs: number = 0;
  readonly #correction: number;
  readonly #deviation: number;

  /**
   * Measurements at other batch sizes count too: those of the whole model say how times grow, and pieces are stretched by
   * that.
   */
  constructor(
    work: ChainWork,
    silicon: Silicon,
    batch: number,
    shards: readonly MeasuredShard[],
    {
      nodeMs = [],
    }: { /** By node, of one run of one item; empty where not measured. */ readonly nodeMs?: readonly number[] } = {},
  ) {
    this.#work = work;
    this.#silicon = silicon;
    this.#batch = batch;
    for (const shard of shards) {
      if (shard.batch !== batch) continue;
      const known = this.#exact.get(shard.from) ?? new Map<number, MeasuredShard>();
      this.#exact.set(shard.from, known.set(shard.to, shard));
    }
    const measured = shards.filter(({ ms }) => Number.isFinite(ms));
    let sum = 0;
    for (const { from, to, ms, batch: size } of measured) sum += Math.log(ms / this.#roofline(from, to, size));
    const weight = shapeDeviation ** 2;
    this.#correction = Math.exp(sum / (measured.length + weight / silicon.deviation ** 2));
    this.#deviation = Math.sqrt(1 / (1 / silicon.deviation ** 2 + measured.length / weight) + weight);
    this.#boundaries = new Float64Array(work.nodes + 1);
    const alone = (at: number): number => this.#roofline(at, at + 1, 1);
    const nodesMs = nodeMs.length === work.nodes ? nodeMs.reduce((total, ms) => total + ms, 0) : 0;
    const ofNodes: MeasuredShard = { from: 0, to: work.nodes, batch: 1, ms: nodesMs, relativeError: 0 };
    const tiles = this.#tiles(measured) ?? (nodesMs > 0 ? this.#tiles([ofNodes]) : undefined);
    if (tiles === undefined) return;
    const { pieces, wholeMs } = tiles;
    this.#tiled = new Float64Array(work.nodes + 1);
    let total = 0;
    for (const { from, to, ms } of pieces) {
      // Shares of each node alone, so that they add up.
      const sumOf = (weight: (at: number) => number): number => {
        let all = 0;
        for (let at = from; at < to; at += 1) all += weight(at);
        return all;
      };
      const timed = nodesMs > 0 ? sumOf((at) => nodeMs[at] ?? 0) : 0;
      const weight = timed > 0 ? (at: number): number => nodeMs[at] ?? 0 : alone;
      const all = timed > 0 ? timed : sumOf(alone);
      for (let at = from; at < to; at += 1) {
        const share = all > 0 ? weight(at) / all : 1 / (to - from);
        total += ms * share;
        this.#tiled[at + 1] = total;
        this.#boundaries[at + 1] = this.#boundaries[at] as number;
      }
      this.#boundaries[to] = (this.#boundaries[to] as number) + 1;
    }
    if (wholeMs !== undefined && pieces.length > 1) this.#boundaryMs = (total - wholeMs) / (pieces.length - 1);
  }

  /** One shard; whether it fits is asked elsewhere. */
  known(from: number, to: number): KnownMs {
    const exact = this.#exact.get(from)?.get(to);
    if (exact !== undefined) {
      return { ms: exact.ms, source: 'measured', deviation: Math.max(exact.relativeError, measuredDeviationMin) };
    }
    const ms = this.#unmeasured(from, to);
    return this.#tiled === undefined
      ? { ms, source: 'estimated', deviation: this.#deviation }
      : { ms, source: 'pieces', deviation: piecesDeviation };
  }

  /** Milliseconds alone. */
  ms(from: number, to: number): number {
    return this.#exact.get(from)?.get(to)?.ms ?? this.#unmeasured(from, to);
  }

  /** `ms` of shards between positions: from the `from`-th to each behind it up to the `last`-th, in `into` at its place. */
  fill(
    positions: readonly number[],
    { from, last, into }: { readonly from: number; readonly last: number; readonly into: Float64Array },
  ): void {
    const begin = positions[from] as number;
    const tiled = this.#tiled;
    if (tiled === undefined) {
      for (let end = from + 1; end <= last; end += 1) into[end] = this.#unmeasured(begin, positions[end] as number);
    } else {
      // As #unmeasured, with what is the same for the whole row said once.
      const boundaries = this.#boundaries;
      const boundaryMs = this.#boundaryMs;
      const before = tiled[begin] as number;
      const boundariesBefore = boundaries[begin] as number;
      for (let end = from + 1; end <= last; end += 1) {
        const to = positions[end] as number;
        const sum = (tiled[to] as number) - before;
        const inside = (boundaries[to - 1] as number) - boundariesBefore;
        const ms = inside > 0 ? sum - boundaryMs * inside : sum;
        into[end] = ms > sum * 0.2 ? ms : sum * 0.2;
      }
    }
    const exact = this.#exact.get(begin);
    if (exact === undefined) return;
    for (let end = from + 1; end <= last; end += 1) {
      const shard = exact.get(positions[end] as number);
      if (shard !== undefined) into[end] = shard.ms;
    }
  }

  #unmeasured(from: number, to: number): number {
    const tiled = this.#tiled;
    if (tiled === undefined) return this.#roofline(from, to, this.#batch) * this.#correction;
    const sum = (tiled[to] as number) - (tiled[from] as number);
    // Boundaries strictly inside: those behind `from` and before `to`.
    const inside = (this.#boundaries[to - 1] as number) - (this.#boundaries[from] as number);
    return Math.max(sum - this.#boundaryMs * Math.max(0, inside), sum * 0.2);
  }

  /** The smallest measured pieces that lie side by side from the first node to the last, stretched to this batch size. */
  #tiles(
    measured: readonly MeasuredShard[],
  ): { readonly pieces: readonly MeasuredShard[]; readonly wholeMs: number | undefined } | undefined {
    const { nodes } = this.#work;
    const wholes = measured.filter(({ from, to }) => from === 0 && to === nodes);
    const wholeMs = this.#wholeMs(wholes);
    const sizes = [...new Set(measured.map(({ batch }) => batch))];
    // Pieces of this batch size first, then those of the nearest.
    sizes.sort((a, b) => Math.abs(Math.log(a / this.#batch)) - Math.abs(Math.log(b / this.#batch)));
    const tilings = sizes.flatMap((size) => {
      const pieces = tilingOf(
        measured.filter(({ batch }) => batch === size),
        nodes,
      );
      return pieces === undefined ? [] : [{ size, pieces }];
    });
    // Several pieces of another size say more than one of this size.
    const best = tilings.find(({ pieces }) => pieces.length > 1) ?? tilings[0];
    if (best === undefined) return undefined;
    const { size, pieces } = best;
    const own = wholes.find(({ batch }) => batch === size)?.ms;
    const grown =
      own !== undefined && wholeMs !== undefined
        ? wholeMs / own
        : this.#roofline(0, nodes, this.#batch) / this.#roofline(0, nodes, size);
    const stretch = size === this.#batch ? 1 : grown;
    return { pieces: pieces.map((piece) => ({ ...piece, ms: piece.ms * stretch })), wholeMs };
  }

  /** The whole model in runs of this size: measured, or on the line between measured sizes. */
  #wholeMs(wholes: readonly MeasuredShard[]): number | undefined {
    const sorted = [...wholes].sort((a, b) => a.batch - b.batch);
    const above = sorted.find(({ batch }) => batch >= this.#batch);
    const below = sorted.findLast(({ batch }) => batch <= this.#batch);
    if (above === undefined || below === undefined) {
      const nearest = above ?? below;
      return nearest === undefined ? undefined : (nearest.ms * this.#batch) / nearest.batch;
    }
    if (above.batch === below.batch) return above.ms;
    return below.ms + ((above.ms - below.ms) * (this.#batch - below.batch)) / (above.batch - below.batch);
  }

  #roofline(from: number, to: number, batch: number): number {
    const { flops, activationBytes, operators, weightBytes } = this.#work;
    const { flopsPerSecond, bytesPerSecond, operatorMs } = this.#silicon;
    const work = ((flops[to] as number) - (flops[from] as number)) * batch;
    const bytes = weightBytes(from, to) + ((activationBytes[to] as number) - (activationBytes[from] as number)) * batch;
    const computeMs = (1000 * work) / (computeShare * flopsPerSecond);
    const memoryMs = (1000 * bytes) / (bandwidthShare * bytesPerSecond);
    const launchMs = ((operators[to] as number) - (operators[from] as number)) * operatorMs;
    return Math.max(computeMs, memoryMs) + Math.max(launchMs, 1e-6);
  }
}

/** Pieces side by side over the whole chain, as many as possible. */
function tilingOf(measured: readonly MeasuredShard[], nodes: number): readonly MeasuredShard[] | undefined {
  const count = new Int32Array(nodes + 1).fill(-1);
  const last: (MeasuredShard | undefined)[] = [];
  count[0] = 0;
  for (const shard of [...measured].sort((a, b) => a.from - b.from || a.to - b.to)) {
    const before = count[shard.from] as number;
    if (before < 0 || before + 1 <= (count[shard.to] as number)) continue;
    count[shard.to] = before + 1;
    last[shard.to] = shard;
  }
  if ((count[nodes] as number) < 1) return undefined;
  const pieces: MeasuredShard[] = [];
  for (let at = nodes; at > 0;) {
    const piece = last[at];
    if (piece === undefined) return undefined;
    pieces.unshift(piece);
    at = piece.from;
  }
  return pieces;
}
