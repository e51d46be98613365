/**
 * ONNX's own words for a pipeline (IR 11): a node's `pipeline_stage` in a named configuration of devices. What a file says
 * is a constraint on cuts; a plan is written back in the same words. Sharding of single tensors is left alone: a shard here
 * is a run of whole nodes.
 */
import { intarsiaError } from '../errors.js';
import type { EncodedModel } from '../onnx/writer.js';
import { WireReader, WireWriter, wireType } from '../wire.js';
import type { CutPlan } from './cut.js';
import type { SplitGraph } from './graph.js';

const modelField = { irVersion: 1, graph: 7, configuration: 26 } as const;
const nodeField = { graphNode: 1, configurations: 10 } as const;
const configurationField = { id: 1, stage: 3 } as const;
/** First IR version that knows these messages. */
const irVersionMin = 11;

/** Pipeline stage of each annotated node, by its place in the sorted graph; of its first configuration that has one. */
export function annotatedStages(graph: SplitGraph): ReadonlyMap<number, number> {
  const stages = new Map<number, number>();
  for (const { index, view } of graph.nodes) {
    const reader = new WireReader(graph.model.bytes, view.bodyStart, view.end);
    while (reader.next()) {
      if (reader.field !== nodeField.configurations) {
        reader.skip();
        continue;
      }
      reader.expect(wireType.bytes);
      const stage = stageOf(reader.message());
      if (stage !== undefined && !stages.has(index)) stages.set(index, stage);
    }
  }
  return stages;
}

function stageOf(reader: WireReader): number | undefined {
  let stage: number | undefined;
  while (reader.next()) {
    if (reader.field === configurationField.stage && reader.type === wireType.varint) stage = reader.int53();
    else reader.skip();
  }
  return stage;
}

/**
 * The cut that a file's annotations ask for: a new shard wherever the stage rises. Nodes without one stay with those
 * before them. Undefined when nothing is annotated.
 * @throws MODEL_INVALID when a stage falls along the sorted graph: no contiguous shards are so.
 */
export function annotatedCut(graph: SplitGraph): readonly number[] | undefined {
  const stages = annotatedStages(graph);
  if (stages.size === 0) return undefined;
  const cuts: number[] = [];
  let current: number | undefined;
  for (const [index, stage] of [...stages].sort((a, b) => a[0] - b[0])) {
    if (current !== undefined && stage < current) {
      throw intarsiaError(
        'MODEL_INVALID',
        `node ${index} (${graph.nodes[index]?.operator ?? ''}) is annotated with pipeline stage ${stage} behind a node of stage ${current}`,
        { node: index, stage, before: current },
      );
    }
    if (current !== undefined && stage > current) cuts.push(index);
    current = stage;
  }
  return cuts;
}

/** The whole model with a plan as annotations under a configuration's name; one device a stage. Weights are not copied. */
export function annotatePlan(
  { graph, shards }: CutPlan,
  { name, devices }: { readonly name: string; readonly devices: readonly string[] },
): Pick<EncodedModel, 'parts' | 'byteLength'> {
  const { model } = graph;
  const source = model.bytes;
  const stageOfNode = new Map<number, number>();
  for (const shard of shards) {
    for (let at = shard.from; at < shard.to; at += 1) {
      stageOfNode.set(graph.nodes[at]?.view.start ?? -1, shard.index);
    }
  }
  const body = new WireWriter(1024);
  const inside = new WireReader(source, model.graph.bodyStart, model.graph.end);
  const places = new Map(graph.nodes.map(({ view }) => [view.start, view]));
  while (inside.next()) {
    const { field, fieldStart } = inside;
    inside.skip();
    const place = field === nodeField.graphNode ? places.get(fieldStart) : undefined;
    const stage = stageOfNode.get(fieldStart);
    if (place === undefined || stage === undefined) {
      body.raw(source.subarray(fieldStart, inside.position));
      continue;
    }
    const node = new WireWriter(256);
    node.raw(source.subarray(place.bodyStart, place.end));
    node.message(nodeField.configurations, (configuration) =>
      configuration.string(configurationField.id, name).int64(configurationField.stage, stage),
    );
    body.embed(nodeField.graphNode, node);
  }
  const writer = new WireWriter(1024);
  writer.int64(modelField.irVersion, Math.max(model.irVersion, irVersionMin));
  const reader = new WireReader(source);
  while (reader.next()) {
    const { field, fieldStart } = reader;
    reader.skip();
    if (field === modelField.graph) writer.embed(modelField.graph, body);
    else if (field !== modelField.irVersion) writer.raw(source.subarray(fieldStart, reader.position));
  }
  writer.message(modelField.configuration, (configuration) => {
    configuration.string(1, name).int64(2, devices.length);
    for (const device of devices) configuration.string(3, device);
  });
  return { parts: writer.parts(), byteLength: writer.byteLength };
}
