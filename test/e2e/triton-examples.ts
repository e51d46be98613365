/**
 * Models that do what those of Triton's example repository do, under the same names and configurations, written by the
 * project: Triton's clients can be tried where that repository is not at hand.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Datatype } from '#core/datatype.js';
import { int } from '#core/onnx/attribute.js';
import { GraphBuilder } from '#core/onnx/builder.js';
import { onnxDataType } from '#core/onnx/data-type.js';
import { encodeModelBytes } from '#core/onnx/writer.js';

/** Writes the repository into an existing folder. */
export async function writeTritonExamples(folder: string): Promise<void> {
  const models = [
    sums('simple', 'INT32'),
    sums('simple_int8', 'INT8'),
    textSums(),
    sequence('simple_sequence', [start, ready], ''),
    sequence('simple_dyna_sequence', [start, end, ready, correlation], oldest),
  ];
  for (const { name, config, graph } of models) {
    await mkdir(join(folder, name, '1'), { recursive: true });
    await writeFile(join(folder, name, 'config.pbtxt'), config);
    await writeFile(join(folder, name, '1/model.onnx'), encodeModelBytes(graph.model({ opset: 17 })));
  }
}

interface Model {
  readonly name: string;
  readonly config: string;
  readonly graph: GraphBuilder;
}

/** Sum and difference of two vectors. */
function sums(name: string, datatype: Datatype): Model {
  const graph = new GraphBuilder(name);
  const [first, second] = inputsOf(graph, datatype);
  graph.output(graph.node('Add', [first, second], { output: 'OUTPUT0' }), datatype, ['batch', 16]);
  graph.output(graph.node('Sub', [first, second], { output: 'OUTPUT1' }), datatype, ['batch', 16]);
  return { name, graph, config: vectorConfig(name, datatype) };
}

/** The same over numbers written as texts. */
function textSums(): Model {
  const graph = new GraphBuilder('simple_string');
  const [first, second] = inputsOf(graph, 'BYTES').map((input) =>
    graph.node('Cast', [input], { attributes: { to: int(onnxDataType.INT32) } }),
  ) as [string, string];
  for (const [index, operator] of ['Add', 'Sub'].entries()) {
    const value = graph.node(operator, [first, second]);
    const output = `OUTPUT${index}`;
    graph.output(graph.node('Cast', [value], { output, attributes: { to: int(onnxDataType.STRING) } }), 'BYTES', [
      'batch',
      16,
    ]);
  }
  return { name: 'simple_string', graph, config: vectorConfig('simple_string', 'STRING') };
}

function inputsOf(graph: GraphBuilder, datatype: Datatype): [string, string] {
  return [graph.input('INPUT0', datatype, ['batch', 16]), graph.input('INPUT1', datatype, ['batch', 16])];
}

function vectorConfig(name: string, type: string): string {
  const tensor = (tensorName: string): string => `{ name: "${tensorName}" data_type: TYPE_${type} dims: [ 16 ] }`;
  return `name: "${name}"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ ${tensor('INPUT0')}, ${tensor('INPUT1')} ]
output [ ${tensor('OUTPUT0')}, ${tensor('OUTPUT1')} ]
`;
}

const flag = (name: string): string =>
  `{ name: "${name}" control [ { kind: CONTROL_SEQUENCE_${name} int32_false_true: [ 0, 1 ] } ] }`;
const start = flag('START');
const end = flag('END');
const ready = flag('READY');
const correlation = '{ name: "CORRID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] }';
const oldest = 'max_sequence_idle_microseconds: 10000000 oldest { max_candidate_sequences: 1024 }';

/** The input, plus one at the start of a sequence, plus the sequence's id at its end where these controls are there. */
function sequence(name: string, controls: readonly string[], strategy: string): Model {
  const graph = new GraphBuilder(name);
  const input = graph.input('INPUT', 'INT32', ['batch', 1]);
  let value = graph.node('Add', [input, graph.input('START', 'INT32', ['batch', 1])]);
  if (controls.includes(correlation)) {
    const id = graph.input('CORRID', 'UINT64', ['batch', 1]);
    const whole = graph.node('Cast', [id], { attributes: { to: int(onnxDataType.INT32) } });
    const last = graph.node('Mul', [whole, graph.input('END', 'INT32', ['batch', 1])]);
    value = graph.node('Add', [value, last]);
  }
  const readyInput = graph.input('READY', 'INT32', ['batch', 1]);
  graph.output(graph.node('Mul', [value, readyInput], { output: 'OUTPUT' }), 'INT32', ['batch', 1]);
  const config = `name: "${name}"
platform: "onnxruntime_onnx"
max_batch_size: 8
sequence_batching { ${strategy} control_input [ ${controls.join(', ')} ] }
input [ { name: "INPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]
output [ { name: "OUTPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]
`;
  return { name, graph, config };
}
