/** Models for a repository in Triton's layout that do well, and models that do harm: each fault is a real one. */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { graph as subgraph, int } from '#core/onnx/attribute.js';
import { GraphBuilder } from '#core/onnx/builder.js';
import { onnxDataType } from '#core/onnx/data-type.js';
import type { Attribute } from '#core/onnx/draft.js';
import { encodeModel, encodeModelBytes } from '#core/onnx/writer.js';
import { modelBytes, node, tensorType, value } from '#test/core/onnx-bytes.js';

const opset = 17;

/** Writes files below a repository, folders as needed. */
export function writeInto(repository: string, files: Readonly<Record<string, string | Uint8Array>>): void {
  for (const [path, content] of Object.entries(files)) {
    const full = join(repository, path);
    mkdirSync(dirname(full), { recursive: true });
    writeFileSync(full, content);
  }
}

/** y = factor × x + 1, [batch, 4]; with so many bytes of weights that add nothing. */
export function affine(factor = 2, weightBytes = 0): Uint8Array {
  const graph = new GraphBuilder('affine');
  const x = graph.input('x', 'FP32', ['batch', 4]);
  const scaled = graph.node('Mul', [x, graph.constant('factor', [1], Float32Array.of(factor))]);
  const one = graph.constant('one', [1], Float32Array.of(1));
  const sum = graph.node('Add', [scaled, one]);
  if (weightBytes === 0) graph.output(sum, 'FP32', ['batch', 4], 'y');
  else {
    const weights = graph.constant('weights', [weightBytes / 4], new Float32Array(weightBytes / 4));
    const most = graph.node('ReduceMax', [weights], { attributes: { keepdims: int(0) } });
    graph.output(graph.node('Add', [sum, most]), 'FP32', ['batch', 4], 'y');
  }
  return encodeModelBytes(graph.model({ opset }));
}

/** y = x + 0, [batch, 4], with so many bytes of weights. */
export function heavy(weightBytes: number): Uint8Array {
  const graph = new GraphBuilder('heavy');
  const x = graph.input('x', 'FP32', ['batch', 4]);
  const weights = graph.constant('weights', [weightBytes / 4], new Float32Array(weightBytes / 4));
  const most = graph.node('ReduceMax', [weights], { attributes: { keepdims: int(0) } });
  graph.output(graph.node('Add', [x, most]), 'FP32', ['batch', 4], 'y');
  return encodeModelBytes(graph.model({ opset }));
}

/** y = x, [batch, n]: answers as large as the questions. */
export function echo(): Uint8Array {
  const graph = new GraphBuilder('echo');
  const x = graph.input('x', 'FP32', ['batch', 'n']);
  graph.output(graph.node('Identity', [x]), 'FP32', ['batch', 'n'], 'y');
  return encodeModelBytes(graph.model({ opset }));
}

/**
 * y = a / b, INT32 [batch, 1]. ONNX Runtime refuses a division by zero, and forgets that the least integer divided by −1 is
 * none: on x64 the processor raises SIGFPE, and the process is gone.
 */
export function quotient(): Uint8Array {
  const graph = new GraphBuilder('quotient');
  const a = graph.input('a', 'INT32', ['batch', 1]);
  const b = graph.input('b', 'INT32', ['batch', 1]);
  // Zeros are what a first run is made of: they shall pass.
  const isZero = graph.node('Equal', [b, graph.constant('zero', [1], Int32Array.of(0))]);
  const divisor = graph.node('Where', [isZero, graph.constant('one', [1], Int32Array.of(1)), b]);
  graph.output(graph.node('Div', [a, divisor]), 'INT32', ['batch', 1], 'y');
  return encodeModelBytes(graph.model({ opset }));
}

/** Inputs with which `quotient` takes its process down on x64. */
export const deadlyQuotient = { a: -2147483648, b: -1 };

/** Repeats a product of matrices `times` times; y = the number of turns: as long a run as the client wishes. */
export function loop(): Uint8Array {
  return encodeModelBytes(loopDraft(true));
}

/** The same without end, whatever the input: its very first run hangs. */
export function endlessLoop(): Uint8Array {
  return encodeModelBytes(loopDraft(false));
}

function loopDraft(isCounted: boolean) {
  const size = 64;
  const body = new GraphBuilder('body');
  const turn = body.input('turn', 'INT64', []);
  const goOn = body.input('go_on', 'BOOL', []);
  const value = body.input('value', 'FP32', [size, size]);
  body.input('turns_before', 'INT64', []);
  body.output(body.node('Identity', [goOn]), 'BOOL', [], 'go_on_out');
  body.output(body.node('Tanh', [body.node('MatMul', [value, value])]), 'FP32', [size, size], 'value_out');
  body.output(body.node('Add', [turn, body.constant('one', [], BigInt64Array.of(1n))]), 'INT64', [], 'turns_out');

  const graph = new GraphBuilder('loop');
  const times = graph.input('times', 'INT64', [1]);
  const yes = graph.constant('yes', [], Uint8Array.of(1), 'BOOL');
  const start = graph.constant('start', [size, size], new Float32Array(size * size).fill(0.01));
  const none = graph.constant('none', [], BigInt64Array.of(0n));
  const attributes: Record<string, Attribute> = { body: subgraph(body.graph()) };
  const count = isCounted ? graph.node('Squeeze', [times]) : '';
  graph.nodeWithOutputs('Loop', [count, yes, start, none], ['final', 'turns'], { attributes });
  graph.output(graph.node('Add', [graph.node('Mul', [times, none]), 'turns']), 'INT64', [1], 'y');
  return graph.model({ opset });
}

/** Wants 2^44 numbers, 64 TiB, when `x` is not negative. */
export function insatiable(): Uint8Array {
  const graph = new GraphBuilder('insatiable');
  const sizes = graph.input('sizes', 'INT64', [2]);
  const filled = graph.node('ConstantOfShape', [sizes]);
  graph.output(graph.node('ReduceMax', [filled], { attributes: { keepdims: int(1) } }), 'FP32', [1, 1], 'y');
  return encodeModelBytes(graph.model({ opset }));
}

export function unknownOperator(): Uint8Array {
  const graph = new GraphBuilder('unknown operator');
  const x = graph.input('x', 'FP32', ['n']);
  graph.output(graph.node('Frobnicate', [x]), 'FP32', ['n'], 'y');
  return encodeModelBytes(graph.model({ opset }));
}

/** An output of 4-bit integers, at which ONNX Runtime's binding aborts Node. The file may keep the type to itself. */
export function int4Output({ isTold }: { readonly isTold: boolean }): Uint8Array {
  const cast = node('Cast', ['x'], ['y'], (writer) =>
    writer.message(5, (attribute) => attribute.string(1, 'to').int64(3, onnxDataType.INT4).uint(20, 2)),
  );
  return modelBytes({
    irVersion: 10,
    nodes: [cast],
    inputs: [value('x', tensorType(onnxDataType.FLOAT, ['n']))],
    outputs: [value('y', isTold ? tensorType(onnxDataType.INT4, ['n']) : undefined)],
    // The later operator set counts.
    modelRest: (writer) => writer.message(8, (opset) => opset.string(1, '').uint(2, 21)),
  });
}

/** `affine` with its weights in a file beside it. */
export function affineWithExternalData(location: string): { readonly model: Uint8Array; readonly weights: Uint8Array } {
  const graph = new GraphBuilder('external');
  const x = graph.input('x', 'FP32', ['batch', 4]);
  const weights = graph.constant('weights', [4], Float32Array.of(1, 2, 3, 4));
  graph.output(graph.node('Mul', [x, weights]), 'FP32', ['batch', 4], 'y');
  const encoded = encodeModel(graph.model({ opset }), { location, tensorBytesMin: 1 });
  if (encoded.external === undefined) throw new Error('the weights stayed inside');
  return { model: Buffer.concat(encoded.parts), weights: Buffer.concat(encoded.external.parts) };
}

/** Puts every hostile model into the repository, by name, and gives back the words that tell why each is not served. */
export function writeHostileModels(repository: string): ReadonlyMap<string, RegExp> {
  const outside = join(repository, '..', 'secret');
  mkdirSync(outside, { recursive: true });
  const secret = affineWithExternalData('weights.bin');
  writeFileSync(join(outside, 'weights.bin'), secret.weights);
  writeFileSync(join(outside, 'model.onnx'), affine());

  const expected = new Map<string, RegExp>();
  const add = (name: string, files: Readonly<Record<string, string | Uint8Array>>, reason: RegExp): void => {
    writeInto(join(repository, name), files);
    expected.set(name, reason);
  };
  const config =
    'name: "config-syntax"\nmax_batch_size: 8\ninput [\n  { name: "x" data_type: TYPE_FP32 dims: [ 4 }\n]\n';
  add(
    'config-syntax',
    { 'config.pbtxt': config, '1/model.onnx': affine() },
    /^config\.pbtxt:4:46: expected "," or "\]"/,
  );
  const unknown = 'max_batch_size: 8\n  dynamic_batcher { }\n';
  add('config-field', { 'config.pbtxt': unknown, '1/model.onnx': affine() }, /^config\.pbtxt:2:3: .*dynamic_batcher/);
  const contradiction = 'max_batch_size: 8\ninput [ { name: "x" data_type: TYPE_INT64 dims: [ 4 ] } ]\n';
  add(
    'config-contradiction',
    { 'config.pbtxt': contradiction, '1/model.onnx': affine() },
    /^config\.pbtxt:2:9: input "x" has type INT64 in the configuration and FP32 in model/,
  );
  const garbage = Uint8Array.from({ length: 4096 }, (_, index) => (index * 7919) & 0xff);
  add('garbage', { '1/model.onnx': garbage }, /not a readable ONNX model/);
  add('cut-off', { '1/model.onnx': affine().subarray(0, 120) }, /runs past the end/);
  add('empty-file', { '1/model.onnx': '' }, /not an ONNX model/);
  add('no-version', { 'config.pbtxt': 'max_batch_size: 0\n' }, /has no version folder/);
  add('unknown-operator', { '1/model.onnx': unknownOperator() }, /Frobnicate/);
  add('int4', { '1/model.onnx': int4Output({ isTold: true }) }, /INT4/);
  add('int4-untold', { '1/model.onnx': int4Output({ isTold: false }) }, /does not say the type/);
  const disguise = 'output [ { name: "y" data_type: TYPE_INT8 dims: [ -1 ] } ]\n';
  add(
    'int4-disguised',
    { 'config.pbtxt': disguise, '1/model.onnx': int4Output({ isTold: false }) },
    /output y has type int4, which cannot be served/,
  );
  add(
    'external-dots',
    { '1/model.onnx': affineWithExternalData('../../../secret/weights.bin').model },
    /stays inside the model's folder/,
  );
  add(
    'external-absolute',
    { '1/model.onnx': affineWithExternalData(join(outside, 'weights.bin')).model },
    /relative to the model's folder/,
  );
  add(
    'external-missing',
    { '1/model.onnx': affineWithExternalData('weights.bin').model },
    /weights\.bin does not exist/,
  );
  add(
    'external-link',
    { '1/model.onnx': affineWithExternalData('weights.bin').model },
    /weights\.bin is a link that leaves the repository/,
  );
  symlinkSync(join(outside, 'weights.bin'), join(repository, 'external-link/1/weights.bin'));
  mkdirSync(join(repository, 'model-link/1'), { recursive: true });
  symlinkSync(join(outside, 'model.onnx'), join(repository, 'model-link/1/model.onnx'));
  expected.set('model-link', /model\.onnx is a link that leaves the repository/);
  return expected;
}
