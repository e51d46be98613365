/**
 * The small models of the example repository: what each takes and gives, and how Triton's configuration says so.
 *
 * - `identity`: numbers out as they came in; for measuring the way to the host and back.
 * - `simple`: sum and difference of two vectors, the model of Triton's own example clients, which work with it unchanged.
 * - `accumulator`: a running sum; the host keeps the state between the requests of a sequence.
 * - `words`: counts the words of a text; strings in, numbers and strings out.
 *
 * `digits`, the one with something to learn, is trained by ../training.
 */
import { text } from '#core/onnx/attribute.js';
import { GraphBuilder } from '#core/onnx/builder.js';
import { encodeModelBytes } from '#core/onnx/writer.js';

/** One model of a repository: its files by path below the repository. */
export interface RepositoryModel {
  readonly name: string;
  readonly files: ReadonlyMap<string, Uint8Array | string>;
}

export function smallModels(): readonly RepositoryModel[] {
  return [identity(), simple(), accumulator(), words()];
}

function identity(): RepositoryModel {
  const graph = new GraphBuilder('identity');
  const input = graph.input('INPUT0', 'FP32', ['batch', 'values']);
  graph.output(graph.node('Identity', [input], { output: 'OUTPUT0' }), 'FP32', ['batch', 'values']);
  const config = `# Gives back what it gets: any number of values. For measuring the way to the host and back.
name: "identity"
backend: "onnxruntime"
max_batch_size: 64
input [
  {
    name: "INPUT0"
    data_type: TYPE_FP32
    dims: [ -1 ]
  }
]
output [
  {
    name: "OUTPUT0"
    data_type: TYPE_FP32
    dims: [ -1 ]
  }
]
`;
  return repositoryModel('identity', config, encodeModelBytes(graph.model({ opset: 17 })));
}

function simple(): RepositoryModel {
  const graph = new GraphBuilder('simple');
  const first = graph.input('INPUT0', 'INT32', ['batch', 16]);
  const second = graph.input('INPUT1', 'INT32', ['batch', 16]);
  graph.output(graph.node('Add', [first, second], { output: 'OUTPUT0' }), 'INT32', ['batch', 16]);
  graph.output(graph.node('Sub', [first, second], { output: 'OUTPUT1' }), 'INT32', ['batch', 16]);
  const config = `# OUTPUT0 = INPUT0 + INPUT1, OUTPUT1 = INPUT0 - INPUT1. Triton's example clients know a model of this name and shape.
name: "simple"
backend: "onnxruntime"
max_batch_size: 8
input [
  {
    name: "INPUT0"
    data_type: TYPE_INT32
    dims: [ 16 ]
  },
  {
    name: "INPUT1"
    data_type: TYPE_INT32
    dims: [ 16 ]
  }
]
output [
  {
    name: "OUTPUT0"
    data_type: TYPE_INT32
    dims: [ 16 ]
  },
  {
    name: "OUTPUT1"
    data_type: TYPE_INT32
    dims: [ 16 ]
  }
]
dynamic_batching { }
`;
  return repositoryModel('simple', config, encodeModelBytes(graph.model({ opset: 17 })));
}

function accumulator(): RepositoryModel {
  const graph = new GraphBuilder('accumulator');
  const value = graph.input('INPUT', 'FP32', ['batch', 1]);
  const before = graph.input('SUM_BEFORE', 'FP32', ['batch', 1]);
  const after = graph.node('Add', [value, before], { output: 'SUM_AFTER' });
  graph.output(after, 'FP32', ['batch', 1]);
  graph.output(after, 'FP32', ['batch', 1], 'OUTPUT');
  const config = `# A running sum. Requests carry a sequence_id, the first also sequence_start, the last sequence_end; the host keeps the
# sum between them (SUM_AFTER of one request is SUM_BEFORE of the next) and clients never see it.
name: "accumulator"
backend: "onnxruntime"
max_batch_size: 16
sequence_batching {
  max_sequence_idle_microseconds: 60000000
  oldest {
    max_candidate_sequences: 256
  }
  state [
    {
      input_name: "SUM_BEFORE"
      output_name: "SUM_AFTER"
      data_type: TYPE_FP32
      dims: [ 1 ]
      initial_state: {
        name: "zero"
        data_type: TYPE_FP32
        dims: [ 1 ]
        zero_data: true
      }
    }
  ]
}
input [
  {
    name: "INPUT"
    data_type: TYPE_FP32
    dims: [ 1 ]
  }
]
output [
  {
    name: "OUTPUT"
    data_type: TYPE_FP32
    dims: [ 1 ]
  }
]
`;
  return repositoryModel('accumulator', config, encodeModelBytes(graph.model({ opset: 17 })));
}

function words(): RepositoryModel {
  const graph = new GraphBuilder('words');
  const input = graph.input('TEXT', 'BYTES', ['batch', 1]);
  const end = graph.constant('exclamation_mark', [], ['!']);
  graph.output(graph.node('StringConcat', [input, end], { output: 'SHOUTED' }), 'BYTES', ['batch', 1]);
  // Without a delimiter it splits at white space; the second output counts the pieces.
  graph.nodeWithOutputs('StringSplit', [input], ['pieces', 'COUNT'], { attributes: { delimiter: text('') } });
  graph.output('COUNT', 'INT64', ['batch', 1]);
  const config = `# COUNT is the number of words of TEXT, SHOUTED is TEXT with an exclamation mark. On the API a string is BYTES.
name: "words"
backend: "onnxruntime"
max_batch_size: 32
input [
  {
    name: "TEXT"
    data_type: TYPE_STRING
    dims: [ 1 ]
  }
]
output [
  {
    name: "COUNT"
    data_type: TYPE_INT64
    dims: [ 1 ]
  },
  {
    name: "SHOUTED"
    data_type: TYPE_STRING
    dims: [ 1 ]
  }
]
dynamic_batching { }
`;
  return repositoryModel('words', config, encodeModelBytes(graph.model({ opset: 20 })));
}

function repositoryModel(name: string, config: string, model: Uint8Array): RepositoryModel {
  const files = new Map<string, Uint8Array | string>([
    [`${name}/config.pbtxt`, config],
    [`${name}/1/model.onnx`, model],
  ]);
  return { name, files };
}
