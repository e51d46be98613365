/**
 * A model's graph as a splitter sees it: live nodes in topological order, what each uses and defines, where each value
 * comes from.
 *
 * A node uses its inputs and, for each of its subgraphs, every outer name that is used or given out there: a producer that
 * only the body of an If or Loop names is a producer all the same. Files need not be sorted; nodes that no output depends
 * on are left out, as every engine does. What an operator means is not known here, but for the few lists of kinds.ts.
 */
import { intarsiaError } from '../errors.js';
import type {
  FunctionView,
  GraphView,
  ModelView,
  NodeView,
  SparseTensorView,
  TensorView,
  ValueView,
} from '../onnx/model-view.js';

export interface SplitNode {
  /** Place in the sorted graph, from 0. */
  readonly index: number;
  readonly view: NodeView;
  /** `Conv`, or `com.microsoft::FusedConv`. */
  readonly operator: string;
  /** Names it reads, each once: inputs and captured names. */
  readonly uses: readonly string[];
  /** Names it makes, each once. */
  readonly defines: readonly string[];
}

export interface SplitGraph {
  readonly model: ModelView;
  /** Live nodes in topological order; in file order where the file is sorted. */
  readonly nodes: readonly SplitNode[];
  /** Value → index of the node that makes it. */
  readonly producers: ReadonlyMap<string, number>;
  /** Value → indexes of the nodes that use it, ascending. */
  readonly users: ReadonlyMap<string, readonly number[]>;
  /** Values a caller must give, in file order. */
  readonly inputs: readonly ValueView[];
  /** Inputs that initializers give a default to, by name. Before IR 4 that is every initializer. */
  readonly defaultedInputs: ReadonlyMap<string, ValueView>;
  readonly initializers: ReadonlyMap<string, TensorView | SparseTensorView>;
  /** In file order. */
  readonly outputs: readonly ValueView[];
  /** Model-local functions by `functionKey`. */
  readonly functions: ReadonlyMap<string, FunctionView>;
  /** Nodes of the file that no output depends on. */
  readonly deadNodes: number;
}

/** Identity of a model-local function, and of what a node calls. */
export function functionKey({
  domain,
  name,
  overload,
}: {
  readonly domain: string;
  readonly name: string;
  readonly overload: string;
}): string {
  return JSON.stringify([domain === 'ai.onnx' ? '' : domain, name, overload]);
}

/** The operator as messages show it. */
export function operatorName({ domain, opType }: NodeView): string {
  return domain === '' || domain === 'ai.onnx' ? opType : `${domain}::${opType}`;
}

/**
 * Sorts and resolves a model's graph. Time and memory grow with nodes, names and nesting.
 *
 * @throws MODEL_INVALID when a name is defined twice or not at all, or the nodes form a cycle.
 */
export function readSplitGraph(model: ModelView): SplitGraph {
  const { graph } = model;
  const initializers = new Map<string, TensorView | SparseTensorView>();
  for (const tensor of graph.initializers) initializers.set(tensor.name, tensor);
  for (const tensor of graph.sparseInitializers) initializers.set(tensor.name, tensor);
  const inputs = graph.inputs.filter(({ name }) => !initializers.has(name));
  const outside = new Set([...initializers.keys(), ...inputs.map(({ name }) => name)]);
  const drafts = graph.nodes.map((view) => ({ view, uses: namesUsed(view), defines: definitions(view) }));
  const producers = new Map<string, number>();
  for (const [index, { defines }] of drafts.entries()) {
    for (const name of defines) {
      if (outside.has(name) || producers.has(name)) throw invalid(`the value ${quote(name)} is defined twice`, name);
      producers.set(name, index);
    }
  }
  const sourceOf = (name: string, what: () => string): number | undefined => {
    const producer = producers.get(name);
    if (producer === undefined && !outside.has(name)) {
      throw invalid(`${what()} uses the value ${quote(name)}, which nothing defines`, name);
    }
    return producer;
  };
  const sources = drafts.map(({ view, uses }) => {
    const found = new Set<number>();
    for (const name of uses) {
      const source = sourceOf(name, () => `node ${quote(view.name)} (${operatorName(view)})`);
      if (source !== undefined) found.add(source);
    }
    return [...found];
  });
  const roots = graph.outputs.flatMap(({ name }) => sourceOf(name, () => 'the output list') ?? []);
  const order = sortedLive(sources, roots);
  const nodes = order.map((from, index): SplitNode => {
    const { view, uses, defines } = drafts[from] as (typeof drafts)[number];
    return { index, view, operator: operatorName(view), uses, defines };
  });
  return {
    model,
    nodes,
    producers: new Map(nodes.flatMap(({ index, defines }) => defines.map((name) => [name, index] as const))),
    users: usersOf(nodes),
    inputs,
    defaultedInputs: new Map(
      graph.inputs.flatMap((value) => (initializers.has(value.name) ? [[value.name, value] as const] : [])),
    ),
    initializers,
    outputs: graph.outputs,
    functions: new Map(model.functions.map((definition) => [functionKey(definition), definition])),
    deadNodes: drafts.length - nodes.length,
  };
}

/** Every node of a node's subgraphs, however deep; the node itself is not among them. */
export function* nodesInside(node: NodeView): Generator<NodeView> {
  for (const { graphs } of node.attributes) {
    for (const graph of graphs) {
      for (const inner of graph.nodes) {
        yield inner;
        yield* nodesInside(inner);
      }
    }
  }
}

/** Names a node reads: its inputs, and what its subgraphs take from outside. */
export function namesUsed(node: NodeView): readonly string[] {
  const names = new Set<string>();
  addNamesUsed(node, names);
  return [...names];
}

function addNamesUsed(node: NodeView, names: Set<string>): void {
  for (const name of node.inputs) if (name !== '') names.add(name);
  for (const { graphs } of node.attributes) for (const graph of graphs) addCaptured(graph, names);
}

/** Outer names of a subgraph. What it defines itself hides an outer value of the same name. */
function addCaptured(graph: GraphView, names: Set<string>): void {
  const used = new Set<string>();
  for (const node of graph.nodes) addNamesUsed(node, used);
  for (const { name } of graph.outputs) if (name !== '') used.add(name);
  for (const { name } of graph.inputs) used.delete(name);
  for (const { name } of graph.initializers) used.delete(name);
  for (const { name } of graph.sparseInitializers) used.delete(name);
  for (const node of graph.nodes) for (const name of node.outputs) used.delete(name);
  for (const name of used) names.add(name);
}

function definitions({ outputs }: NodeView): readonly string[] {
  return [...new Set(outputs.filter((name) => name !== ''))];
}

function usersOf(nodes: readonly SplitNode[]): ReadonlyMap<string, readonly number[]> {
  const users = new Map<string, number[]>();
  for (const { index, uses } of nodes) {
    for (const name of uses) {
      const list = users.get(name);
      if (list === undefined) users.set(name, [index]);
      else list.push(index);
    }
  }
  return users;
}

/** Nodes that the roots depend on, sources first; among those that are ready the first in the file. */
function sortedLive(sources: readonly (readonly number[])[], roots: readonly number[]): readonly number[] {
  const live = new Uint8Array(sources.length);
  const stack = [...roots];
  for (let at = stack.pop(); at !== undefined; at = stack.pop()) {
    if (live[at] === 1) continue;
    live[at] = 1;
    for (const source of sources[at] ?? []) stack.push(source);
  }
  const waiting = sources.map(({ length }) => length);
  const dependants: number[][] = sources.map(() => []);
  const ready = new IndexHeap();
  let count = 0;
  for (const [index, list] of sources.entries()) {
    if (live[index] === 0) continue;
    count += 1;
    for (const source of list) dependants[source]?.push(index);
    if (list.length === 0) ready.push(index);
  }
  const order: number[] = [];
  for (let at = ready.pop(); at !== undefined; at = ready.pop()) {
    order.push(at);
    for (const dependant of dependants[at] ?? []) {
      const left = (waiting[dependant] ?? 0) - 1;
      waiting[dependant] = left;
      if (left === 0) ready.push(dependant);
    }
  }
  if (order.length < count) {
    throw invalid(`${count - order.length} nodes of the model wait for each other in a circle`, '');
  }
  return order;
}

/** Smallest number first. */
class IndexHeap {
  readonly #items: number[] = [];

  push(value: number): void {
    const items = this.#items;
    let at = items.length;
    items.push(value);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = items[parent] as number;
      if (above <= value) break;
      items[at] = above;
      at = parent;
    }
    items[at] = value;
  }

  pop(): number | undefined {
    const items = this.#items;
    const first = items[0];
    const last = items.pop();
    if (first === undefined || last === undefined || items.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && (items[child + 1] as number) < (items[child] as number)) child += 1;
      if ((items[child] as number) >= last) break;
      items[at] = items[child] as number;
      at = child;
    }
    items[at] = last;
    return first;
  }
}

/** A name from a file as messages show it. */
export function quote(name: string): string {
  return JSON.stringify(name.length > 120 ? `${name.slice(0, 120)}…` : name);
}

function invalid(problem: string, name: string): Error {
  return intarsiaError('MODEL_INVALID', `the graph cannot be sorted: ${problem}`, { value: name.slice(0, 120) });
}
