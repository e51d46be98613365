/**
 * Cuts a sorted graph into contiguous shards.
 *
 * A cut is a list of ascending positions; position p lies before node p. Every node stays in the shard of its place, but
 * for what is cheaper to repeat than to send (node-kinds.ts): such nodes are copied into the shards that use them and left
 * out where nobody does. Values that cross go from the shard that makes them to each shard that uses them, however far
 * apart. Every output of the model leaves exactly one shard, an output that is an input or an initializer too.
 *
 * Which cuts are good is the planner's question (cut-candidates.ts); here only whether one is possible.
 */
import { intarsiaError, invariant } from '../errors.js';
import { crossingProblem, type ValueTypes } from './boundary-type.js';
import type { SplitGraph, SplitNode } from './graph.js';
import { nodeKinds, type NodeKind } from './node-kinds.js';

export interface ShardDraft {
  readonly index: number;
  /** Places of the shard in the sorted graph: first node, and the node behind its last. */
  readonly from: number;
  readonly to: number;
  /** What it runs, in topological order, copies included. */
  readonly nodes: readonly SplitNode[];
  /** Nodes of other shards among them. */
  readonly copies: number;
  /** Values it must be given: inputs of the model, in their order, then values of earlier shards. */
  readonly inputs: readonly string[];
  /** Values it gives: outputs of the model, in their order, then what later shards need. */
  readonly outputs: readonly string[];
  /** Initializers it holds, in file order; those that two shards use are in both. */
  readonly initializers: readonly string[];
}

/** One value on its way. */
export interface Crossing {
  readonly name: string;
  readonly from: number;
  /** Shards that need it, ascending. */
  readonly to: readonly number[];
}

export interface CutPlan {
  readonly graph: SplitGraph;
  readonly cuts: readonly number[];
  readonly shards: readonly ShardDraft[];
  readonly crossings: readonly Crossing[];
}

/** A graph prepared for many cuts. */
export class Cutter {
  readonly graph: SplitGraph;
  readonly kinds: readonly NodeKind[];
  readonly #inputs: ReadonlySet<string>;

  constructor(graph: SplitGraph) {
    this.graph = graph;
    this.kinds = nodeKinds(graph);
    this.#inputs = new Set(graph.inputs.map(({ name }) => name));
  }

  /**
   * The shards of a cut. No positions: one shard.
   * @throws INVALID_ARGUMENT when positions do not ascend or leave a shard without nodes.
   */
  cut(cuts: readonly number[]): CutPlan {
    this.#check(cuts);
    // A shard of nothing but repeated nodes would be empty: there they are work like any other.
    const pinned = new Set<number>();
    for (;;) {
      const plan = this.#attempt(cuts, pinned);
      const empty = plan.shards.find(({ nodes, outputs }) => nodes.length === 0 || outputs.length === 0);
      if (empty === undefined || cuts.length === 0) return plan;
      invariant(!pinned.has(empty.index), `shard ${empty.index} has nothing to do although its nodes are live`);
      pinned.add(empty.index);
    }
  }

  /** Why a plan cannot run: each crossing value that no executor can hand over, with the reason. */
  problems({ crossings }: CutPlan, types: ValueTypes): readonly string[] {
    return crossings.map(({ name }) => crossingProblem(name, types.get(name))).filter((problem) => problem !== '');
  }

  #check(cuts: readonly number[]): void {
    const { length } = this.graph.nodes;
    let before = 0;
    for (const position of cuts) {
      if (!Number.isInteger(position) || position <= before || position >= length) {
        throw intarsiaError(
          'INVALID_ARGUMENT',
          `the cut [${cuts.slice(0, 20).join(',')}] is none: positions ascend from 1 to ${length - 1}, the graph has ${length} nodes`,
          { nodes: length },
        );
      }
      before = position;
    }
  }

  #attempt(cuts: readonly number[], pinned: ReadonlySet<number>): CutPlan {
    const { graph } = this;
    const bounds = [0, ...cuts, graph.nodes.length];
    const shardOf = new Int32Array(graph.nodes.length);
    for (let shard = 0; shard + 1 < bounds.length; shard += 1) shardOf.fill(shard, bounds[shard], bounds[shard + 1]);
    const count = bounds.length - 1;
    const wanted: Set<string>[] = Array.from({ length: count }, () => new Set());
    for (const { name } of graph.outputs) {
      const producer = graph.producers.get(name);
      wanted[producer === undefined ? count - 1 : (shardOf[producer] ?? 0)]?.add(name);
    }
    const crossing = new Map<string, { readonly from: number; readonly to: number[] }>();
    const shards: ShardDraft[] = [];
    // Last first: what later shards need is settled before the shards that make it are.
    for (let index = count - 1; index >= 0; index -= 1) {
      const outputs = wanted[index] as Set<string>;
      const draft = new ShardResolver(this, { index, shardOf, pinned, inputs: this.#inputs }).resolve(outputs);
      for (const name of draft.inputs) {
        const producer = graph.producers.get(name);
        if (producer === undefined) continue;
        const from = shardOf[producer] ?? 0;
        wanted[from]?.add(name);
        const known = crossing.get(name);
        if (known === undefined) crossing.set(name, { from, to: [index] });
        else known.to.unshift(index);
      }
      shards.unshift({ ...draft, index, from: bounds[index] ?? 0, to: bounds[index + 1] ?? 0, outputs: [...outputs] });
    }
    return { graph, cuts, shards, crossings: [...crossing].map(([name, { from, to }]) => ({ name, from, to })) };
  }
}

interface ShardPlace {
  readonly index: number;
  readonly shardOf: Int32Array;
  readonly pinned: ReadonlySet<number>;
  readonly inputs: ReadonlySet<string>;
}

/** Finds what one shard runs, holds and must be given, from what it must give. */
class ShardResolver {
  readonly #graph: SplitGraph;
  readonly #kinds: readonly NodeKind[];
  readonly #place: ShardPlace;
  readonly #nodes = new Set<number>();
  readonly #initializers = new Set<string>();
  readonly #inputs = new Set<string>();
  /** Values of earlier shards. */
  readonly #needs = new Set<string>();

  constructor({ graph, kinds }: Cutter, place: ShardPlace) {
    this.#graph = graph;
    this.#kinds = kinds;
    this.#place = place;
  }

  resolve(outputs: ReadonlySet<string>): Pick<ShardDraft, 'nodes' | 'copies' | 'inputs' | 'initializers'> {
    const { index, shardOf } = this.#place;
    const stack = [...outputs];
    for (let name = stack.pop(); name !== undefined; name = stack.pop()) {
      const producer = this.#graph.producers.get(name);
      if (producer === undefined) this.#takeOutside(name);
      else if (shardOf[producer] === index || this.#isRepeated(producer)) this.#take(producer, stack);
      else this.#needs.add(name);
    }
    this.#repeatShapes();
    const { nodes: all, initializers } = this.#graph;
    const nodes = [...this.#nodes].sort((a, b) => a - b).map((at) => all[at] as SplitNode);
    const needs = [...this.#needs];
    return {
      nodes,
      copies: nodes.filter((node) => shardOf[node.index] !== index).length,
      inputs: [
        ...this.#graph.inputs.map(({ name }) => name).filter((name) => this.#inputs.has(name)),
        ...needs.sort((a, b) => (this.#graph.producers.get(a) ?? 0) - (this.#graph.producers.get(b) ?? 0)),
      ],
      initializers:
        this.#initializers.size === 0 ? [] : [...initializers.keys()].filter((name) => this.#initializers.has(name)),
    };
  }

  #take(node: number, stack: string[]): void {
    if (this.#nodes.has(node)) return;
    this.#nodes.add(node);
    for (const name of this.#graph.nodes[node]?.uses ?? []) stack.push(name);
  }

  #takeOutside(name: string): void {
    (this.#graph.initializers.has(name) ? this.#initializers : this.#inputs).add(name);
  }

  /** Whether a node of another shard is copied rather than asked for its values. */
  #isRepeated(node: number): boolean {
    const { pinned, shardOf } = this.#place;
    const kind = this.#kinds[node];
    return (kind === 'constant' || kind === 'dequantize') && !pinned.has(shardOf[node] ?? 0);
  }

  /** Sizes are computed here where the tensors they are the sizes of are here. */
  #repeatShapes(): void {
    const { producers } = this.#graph;
    const asked = [...this.#needs].map((name) => [name, producers.get(name) ?? 0] as const);
    for (const [name, producer] of asked.sort((a, b) => a[1] - b[1])) {
      if (this.#kinds[producer] !== 'shape') continue;
      const chain = new Set<number>();
      if (!this.#isReachable(producer, name, chain)) continue;
      this.#needs.delete(name);
      for (const node of chain) {
        this.#nodes.add(node);
        for (const used of this.#graph.nodes[node]?.uses ?? []) {
          if (!producers.has(used)) this.#takeOutside(used);
        }
      }
    }
  }

  /** Whether a shape node can be computed from what the shard has without `without`; collects the nodes it takes. */
  #isReachable(node: number, without: string, chain: Set<number>): boolean {
    const { pinned, shardOf } = this.#place;
    if (chain.has(node) || this.#nodes.has(node)) return true;
    const kind = this.#kinds[node];
    if ((kind !== 'shape' && kind !== 'constant') || pinned.has(shardOf[node] ?? 0)) return false;
    chain.add(node);
    return (this.#graph.nodes[node]?.uses ?? []).every((name) => {
      const producer = this.#graph.producers.get(name);
      if (producer === undefined) return this.#graph.initializers.has(name) || this.#inputs.has(name);
      if (this.#needs.has(name) && name !== without) return true;
      return this.#isReachable(producer, without, chain);
    });
  }
}
