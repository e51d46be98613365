/**
 * Times of single nodes from an engine's own profile. Nodes of a model may have no names or equal ones, so the model is
 * written once more with a name for each that says its place; optimisers keep one of the names of what they fuse.
 */
import { IntarsiaError, intarsiaError } from '../errors.js';
import type { EncodedModel } from '../onnx/writer.js';
import type { SplitGraph } from '../split/graph.js';
import { WireReader, WireWriter } from '../wire.js';

const graphNode = 1;
const nodeName = 3;

/** Events of one profile that are read at most. */
const eventsMax = 5_000_000;

/** The model with its sorted graph's places as names of nodes; weights are not copied. */
export function encodeNamedNodes(graph: SplitGraph): Pick<EncodedModel, 'parts' | 'byteLength'> {
  const { bytes, graph: place } = graph.model;
  const nodes = new Map(graph.nodes.map(({ view, index }) => [view.start, { view, index }]));
  const body = new WireWriter(1024);
  const reader = new WireReader(bytes, place.bodyStart, place.end);
  while (reader.next()) {
    const { field, fieldStart } = reader;
    reader.skip();
    const node = field === graphNode ? nodes.get(fieldStart) : undefined;
    if (node === undefined) {
      body.raw(bytes.subarray(fieldStart, reader.position));
      continue;
    }
    // Of a field that occurs twice the last counts.
    const renamed = new WireWriter(64);
    renamed.raw(bytes.subarray(node.view.bodyStart, node.view.end)).string(nodeName, `place#${node.index}#`);
    body.embed(graphNode, renamed);
  }
  const writer = new WireWriter(1024);
  writer.raw(bytes.subarray(0, place.start)).embed(7, body).raw(bytes.subarray(place.end));
  return { parts: writer.parts(), byteLength: writer.byteLength };
}

export interface NodeTimes {
  /** Mean milliseconds of one run, by place; 0 for nodes that did not run by themselves. */
  readonly nodeMs: readonly number[];
  /** Milliseconds of operators that the optimiser put in and that carry no node's name. */
  readonly otherMs: number;
}

/**
 * Reads ONNX Runtime's profile of a model written by `encodeNamedNodes`.
 *
 * @param skip First runs that do not count, of `runs` in it.
 * @throws INVALID_ARGUMENT when the text is no such profile.
 */
export function readNodeTimes(
  text: string,
  { nodes, runs, skip }: { readonly nodes: number; readonly runs: number; readonly skip: number },
): NodeTimes {
  const events = parseEvents(text);
  const counted = runs - skip;
  // Events of a node come in the order of the runs.
  const seen = new Map<string, number>();
  const nodeMs = new Array<number>(nodes).fill(0);
  let otherMs = 0;
  for (const event of events) {
    const { cat, name, dur } = event as { readonly cat?: unknown; readonly name?: unknown; readonly dur?: unknown };
    if (cat !== 'Node' || typeof name !== 'string' || typeof dur !== 'number' || !name.endsWith('_kernel_time'))
      continue;
    const before = seen.get(name) ?? 0;
    seen.set(name, before + 1);
    if (before < skip) continue;
    const place = Number(/place#(\d+)#/.exec(name)?.[1] ?? -1);
    const ms = dur / 1000 / counted;
    if (place >= 0 && place < nodes) nodeMs[place] = (nodeMs[place] as number) + ms;
    else otherMs += ms;
  }
  return { nodeMs, otherMs };
}

function parseEvents(text: string): readonly unknown[] {
  try {
    const events = JSON.parse(text) as unknown;
    if (!Array.isArray(events)) throw intarsiaError('INVALID_ARGUMENT', "the engine's profile is not a list of events");
    if (events.length > eventsMax) {
      throw intarsiaError(
        'INVALID_ARGUMENT',
        `the engine's profile has ${events.length} events; ${eventsMax} are read`,
      );
    }
    return events as readonly unknown[];
  } catch (error) {
    if (error instanceof IntarsiaError) throw error;
    throw intarsiaError('INVALID_ARGUMENT', "the engine's profile is not JSON", {}, error);
  }
}
