/**
 * The real models that may lie beside the repository (../shared/models) as conformance cases: what goes in, what must come
 * out, and which of them cannot run here and why. Nothing of it belongs to the product.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { readTensorProto, tensorOfOnnx } from '#core/onnx/tensor-proto.js';
import { elementCount, encodeBytesElements, type Tensor } from '#core/tensor.js';
import { loadDirect, type DirectModel } from './direct-runtime.js';
import type { ConformanceCase, ImpossibleCase, StreamCase, Tolerance, VectorCase } from './cases.js';
import { obstacle, readSignature, readVector } from './model-signature.js';
import { storiesCases } from './stories.js';

export const sharedModels = join(import.meta.dirname, '../../../shared/models');

/** Why the cases cannot run, for the title of a skipped test; empty when they can. */
export const sharedModelsMissing = existsSync(sharedModels) ? '' : 'no folder ../shared/models beside the repository';

/** ONNX's own tolerance for its backend tests. */
const onnxTolerance: Tolerance = { absolute: 1e-7, relative: 1e-3 };
const floatTolerance: Tolerance = { absolute: 1e-5, relative: 1e-3 };
const halfTolerance: Tolerance = { absolute: 1e-3, relative: 2e-2 };

/** Every case, in a fixed order. Reads the vectors; loads no model. */
export function listSharedModels(folder: string = sharedModels): readonly (ConformanceCase | ImpossibleCase)[] {
  return [
    ...testSets(folder, 'mnist', 'model.onnx', floatTolerance),
    ...testSets(folder, 'squeezenet-fp16', 'model.onnx', halfTolerance),
    ...testSets(folder, 'ultraface-rfb-320', 'version-RFB-320.onnx', floatTolerance),
    microKws(folder, 'static_fp32', floatTolerance),
    // One quantisation step of its output.
    microKws(folder, 'static_qdq', { absolute: 1 / 128, relative: 0 }),
    gtcrnStream(folder),
    sileroStream(folder),
    ...storiesCases(join(folder, 'stories260K')),
    ...tritonModels(folder),
    ...lightModels(folder),
    ...onnxConformance(folder),
  ];
}

/** The folders `test_data_set_N` of a model. */
function testSets(folder: string, name: string, file: string, tolerance: Tolerance): VectorCase[] {
  const sets = readdirSync(join(folder, name)).filter((entry) => entry.startsWith('test_data_set_'));
  return sets.sort().map((set): VectorCase => {
    const modelPath = join(folder, name, file);
    return {
      kind: 'vector',
      name: `${name}-${set.slice('test_data_set_'.length)}`,
      model: name,
      modelPath,
      tolerance,
      heavy: false,
      ...readVectors(join(folder, name, set), readFileSync(modelPath)),
    };
  });
}

function readVectors(folder: string, model: Uint8Array): Pick<VectorCase, 'inputs' | 'expected'> {
  const signature = readSignature(model);
  const read = (prefix: string, names: readonly string[]): Tensor[] =>
    names
      .map((name, index) => ({ name, path: join(folder, `${prefix}_${index}.pb`) }))
      .filter(({ path }) => existsSync(path))
      .map(({ name, path }) => tensorOfOnnx(readVector(readFileSync(path), name)));
  return {
    inputs: read(
      'input',
      signature.inputs.map(({ name }) => name),
    ),
    expected: read(
      'output',
      signature.outputs.map(({ name }) => name),
    ),
  };
}

function microKws(folder: string, variant: string, tolerance: Tolerance): VectorCase {
  const modelPath = join(folder, 'micro-kws', `micro_kws_m_${variant}.onnx`);
  const signature = readSignature(readFileSync(modelPath));
  const read = (file: string, name: string): Tensor =>
    tensorOfOnnx(readVector(readFileSync(join(folder, 'micro-kws/test_data_set_0', file)), name));
  return {
    kind: 'vector',
    name: `micro-kws-${variant}`,
    model: `micro-kws-${variant}`,
    modelPath,
    tolerance,
    heavy: false,
    inputs: [read('input_0.pb', signature.inputs[0]?.name ?? '')],
    expected: [read(`output_0.micro_kws_m_${variant}.pb`, signature.outputs[0]?.name ?? '')],
  };
}

/** Speech enhancement: three caches travel from frame to frame; at the end they must be as stored too. */
function gtcrnStream(folder: string): StreamCase {
  const read = (file: string): Tensor =>
    tensorOfOnnx(readTensorProto(readFileSync(join(folder, 'gtcrn/stream', file))));
  const [frames, enhanced] = [read('input_frames.pb'), read('output_frames.pb')];
  const finals = ['final_conv_cache.pb', 'final_tra_cache.pb', 'final_inter_cache.pb'].map(read);
  const steps = frames.shape[0] ?? 0;
  return {
    kind: 'stream',
    name: 'gtcrn-stream',
    model: 'gtcrn',
    modelPath: join(folder, 'gtcrn/gtcrn_simple.onnx'),
    tolerance: { absolute: 1e-4, relative: 1e-2 },
    heavy: true,
    steps,
    inputs: (step, before) => [
      frameOf(frames, 'mix', step),
      ...finals.map((final) => {
        const name = final.name.replace(/_out$/u, '');
        const carried = before.get(final.name);
        return carried === undefined
          ? { ...final, name, data: new Uint8Array(final.data.byteLength) }
          : { ...carried, name };
      }),
    ],
    expected: (step) => [frameOf(enhanced, 'enh', step), ...(step === steps - 1 ? finals : [])],
  };
}

function frameOf(frames: Tensor, name: string, step: number): Tensor {
  const [, bins = 0, parts = 0] = frames.shape;
  const bytes = bins * parts * 4;
  const data = frames.data.subarray(step * bytes, (step + 1) * bytes);
  return { name, datatype: 'FP32', shape: [1, bins, 1, parts], data };
}

/**
 * Voice activity: a state and the end of the last chunk travel from chunk to chunk. Its stored probabilities belong to a
 * sound that is not in the folder, so a drawn sound is used and the direct road is the reference.
 */
function sileroStream(folder: string): StreamCase {
  const modelPath = join(folder, 'silero-vad/silero_vad.onnx');
  const steps = 40;
  const chunk = 512;
  const context = 64;
  const sound = Float32Array.from({ length: context + steps * chunk }, (_, index) => {
    const time = index / 16_000;
    const loudness = index < context ? 0 : 0.5 + 0.5 * Math.sin(2 * Math.PI * 3 * time);
    return 0.3 * loudness * (Math.sin(2 * Math.PI * 140 * time) + Math.sin(2 * Math.PI * 700 * time) / 2);
  });
  let direct: Promise<DirectModel> | undefined;
  return {
    kind: 'stream',
    name: 'silero-vad-stream',
    model: 'silero-vad',
    modelPath,
    tolerance: { absolute: 1e-4, relative: 1e-2 },
    heavy: false,
    steps,
    inputs: (step, before) => {
      const samples = sound.slice(step * chunk, step * chunk + context + chunk);
      const state = before.get('stateN')?.data ?? new Uint8Array(4 * 2 * 128);
      return [
        { name: 'input', datatype: 'FP32', shape: [1, context + chunk], data: new Uint8Array(samples.buffer) },
        { name: 'state', datatype: 'FP32', shape: [2, 1, 128], data: state },
        { name: 'sr', datatype: 'INT64', shape: [], data: new Uint8Array(new BigInt64Array([16_000n]).buffer) },
      ];
    },
    expected: async (step, inputs) => {
      direct ??= loadDirect(modelPath);
      const model = await direct;
      const outputs = await model.run(inputs);
      if (step === steps - 1) {
        direct = undefined;
        await model.release();
      }
      return outputs;
    },
  };
}

/** Triton's examples: sums and differences, computed here. */
function tritonModels(folder: string): VectorCase[] {
  const root = join(folder, 'triton-model-repository');
  const first = Array.from({ length: 16 }, (_, index) => index * 3 - 20);
  const second = Array.from({ length: 16 }, (_, index) => 5 - index);
  const sums = first.map((value, index) => value + (second[index] ?? 0));
  const differences = first.map((value, index) => value - (second[index] ?? 0));
  const encoders = {
    simple: (values: readonly number[]) => new Uint8Array(Int32Array.from(values).buffer),
    simple_int8: (values: readonly number[]) => new Uint8Array(Int8Array.from(values).buffer),
    simple_string: (values: readonly number[]) =>
      encodeBytesElements(values.map((value) => Buffer.from(String(value)))),
  } as const;
  const datatypes = { simple: 'INT32', simple_int8: 'INT8', simple_string: 'BYTES' } as const;
  return (['simple', 'simple_int8', 'simple_string'] as const).map((name): VectorCase => {
    const tensor = (tensorName: string, values: readonly number[]): Tensor => ({
      name: tensorName,
      datatype: datatypes[name],
      shape: [1, 16],
      data: encoders[name](values),
    });
    return {
      kind: 'vector',
      name: `triton-${name}`,
      model: name,
      modelPath: join(root, name, '1/model.onnx'),
      tolerance: { absolute: 0, relative: 0 },
      heavy: false,
      inputs: [tensor('INPUT0', first), tensor('INPUT1', second)],
      expected: [tensor('OUTPUT0', sums), tensor('OUTPUT1', differences)],
    };
  });
}

/** True topologies with constant weights: the output does not depend on the input. */
function lightModels(folder: string): VectorCase[] {
  const root = join(folder, 'onnx-light');
  const files = readdirSync(root).filter((file) => file.endsWith('.onnx'));
  return files.sort().map((file): VectorCase => {
    const name = basename(file, '.onnx');
    const modelPath = join(root, file);
    const signature = readSignature(readFileSync(modelPath));
    const inputs = signature.inputs.map((input): Tensor => {
      const shape = (input.shape ?? []).map((size) => Math.max(1, size));
      return { name: input.name, datatype: 'FP32', shape, data: new Uint8Array(4 * elementCount(shape)) };
    });
    const output = readVector(readFileSync(join(root, `${name}_output_0.pb`)), signature.outputs[0]?.name ?? '');
    return {
      kind: 'vector',
      name: `onnx-light-${name}`,
      model: name,
      modelPath,
      tolerance: floatTolerance,
      heavy: true,
      inputs,
      expected: [tensorOfOnnx(output)],
    };
  });
}

/** ONNX's own backend tests, one small model each. */
function onnxConformance(folder: string): (VectorCase | ImpossibleCase)[] {
  const root = join(folder, 'onnx-conformance');
  return readdirSync(root)
    .sort()
    .flatMap((family) =>
      readdirSync(join(root, family))
        .sort()
        .map((test) => conformanceCase(join(root, family, test), `onnx-${family}-${test}`)),
    );
}

function conformanceCase(folder: string, name: string): VectorCase | ImpossibleCase {
  const modelPath = join(folder, 'model.onnx');
  const model = readFileSync(modelPath);
  const { inputs, outputs } = readSignature(model);
  const reason = [...inputs, ...outputs].map(obstacle).find((found) => found !== undefined);
  if (reason !== undefined) return { kind: 'impossible', name, modelPath, reason };
  const vectors = readVectors(join(folder, 'test_data_set_0'), model);
  return { kind: 'vector', name, model: name, modelPath, tolerance: onnxTolerance, heavy: false, ...vectors };
}
