/** The shortest road to a model: onnxruntime-node in this process. The reference for every other road. */
import * as ort from 'onnxruntime-node';
import { withReadableHalves } from '#adapters/onnx/half-floats.js';
import type { Datatype } from '#core/datatype.js';
import { decodeBytesElements, encodeBytesElements, type Tensor } from '#core/tensor.js';

const OrtTensor = withReadableHalves(ort.Tensor);

const ortTypes = new Map<Datatype, ort.Tensor.Type>([
  ['BOOL', 'bool'],
  ['UINT8', 'uint8'],
  ['UINT16', 'uint16'],
  ['UINT32', 'uint32'],
  ['UINT64', 'uint64'],
  ['INT8', 'int8'],
  ['INT16', 'int16'],
  ['INT32', 'int32'],
  ['INT64', 'int64'],
  ['FP16', 'float16'],
  ['FP32', 'float32'],
  ['FP64', 'float64'],
  ['BYTES', 'string'],
]);
const datatypesOfOrt = new Map([...ortTypes].map(([datatype, type]) => [type, datatype]));

const arrays = {
  BOOL: Uint8Array,
  UINT8: Uint8Array,
  UINT16: Uint16Array,
  UINT32: Uint32Array,
  UINT64: BigUint64Array,
  INT8: Int8Array,
  INT16: Int16Array,
  INT32: Int32Array,
  INT64: BigInt64Array,
  FP16: Uint16Array,
  FP32: Float32Array,
  FP64: Float64Array,
} as const;

export interface DirectModel {
  run(inputs: readonly Tensor[]): Promise<readonly Tensor[]>;
  release(): Promise<void>;
}

/** Loads a model file. Rejects with ONNX Runtime's words when it cannot. */
export async function loadDirect(path: string): Promise<DirectModel> {
  const session = await ort.InferenceSession.create(path, { intraOpNumThreads: 1, logSeverityLevel: 4 });
  return {
    async run(inputs) {
      const feeds = Object.fromEntries(inputs.map((tensor) => [tensor.name, toOrt(tensor)]));
      const results = await session.run(feeds);
      return session.outputNames.map((name) => fromOrt(name, results[name]));
    },
    release: () => session.release(),
  };
}

function toOrt(tensor: Tensor): ort.Tensor {
  const { datatype, shape, data } = tensor;
  if (datatype === 'BYTES') {
    const texts = decodeBytesElements(data).map((element) => Buffer.from(element).toString('utf8'));
    return new OrtTensor('string', texts, shape);
  }
  if (datatype === 'BF16') throw new Error(`'${tensor.name}' is BF16`);
  // A copy is aligned for every element size; the slice() of a Node Buffer would be a view.
  return new OrtTensor(ortTypes.get(datatype)!, new arrays[datatype](new Uint8Array(data).buffer) as never, shape);
}

function fromOrt(name: string, tensor: ort.Tensor | undefined): Tensor {
  if (tensor === undefined) throw new Error(`'${name}' did not come out`);
  const datatype = datatypesOfOrt.get(tensor.type);
  if (datatype === undefined) throw new Error(`'${name}' is ${tensor.type}`);
  const { data } = tensor;
  if (Array.isArray(data)) {
    const elements = data.map((value) => Buffer.from(value, 'utf8'));
    return { name, datatype, shape: tensor.dims, data: encodeBytesElements(elements) };
  }
  return { name, datatype, shape: tensor.dims, data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) };
}
