/**
 * Made-up inputs for models without test vectors: drawn from a seed, so that the same model is asked the same.
 *
 * What a model takes beyond types and sizes no file says: an index must lie within its table, a mask is 0 or 1. Small
 * whole numbers fit most; `attempt` gives further ways for models that refuse the first.
 */
import { datatypeBytes } from '../datatype.js';
import { RandomStream } from '../random.js';
import { elementCount, encodeBytesElements, type Tensor, type TensorSpec } from '../tensor.js';

/** Ways to fill in what is not known: a size for dimensions that vary, and a bound for whole numbers. */
const attempts = [
  { size: 1, below: 2 },
  { size: 4, below: 2 },
  { size: 2, below: 2 },
  { size: 16, below: 2 },
  { size: 1, below: 1 },
  { size: 8, below: 1 },
  { size: 32, below: 2 },
  { size: 64, below: 2 },
] as const;

/** How many ways there are. */
export const sampleAttempts = attempts.length;

/** Inputs by their specifications; `attempt` from 0 to `sampleAttempts` - 1. */
export function sampleInputs(
  specs: readonly TensorSpec[],
  { seed, attempt }: { readonly seed: number; readonly attempt: number },
): readonly Tensor[] {
  const way = attempts[attempt % attempts.length] ?? attempts[0];
  return specs.map((spec) => {
    const shape = spec.shape.map((size) => (size < 0 ? way.size : size));
    return sampleTensor({ ...spec, shape }, new RandomStream(seed).stream(spec.name), way.below);
  });
}

function sampleTensor({ name, datatype, shape }: TensorSpec, random: RandomStream, below: number): Tensor {
  const count = elementCount(shape);
  if (datatype === 'BYTES') {
    const elements = Array.from({ length: count }, () => Uint8Array.of(97 + random.below(26)));
    return { name, datatype, shape, data: encodeBytesElements(elements) };
  }
  const width = datatypeBytes(datatype);
  const data = new Uint8Array(count * width);
  const view = new DataView(data.buffer);
  for (let index = 0; index < count; index += 1) {
    const at = index * width;
    switch (datatype) {
      case 'FP32':
        view.setFloat32(at, random.next() * 2 - 1, true);
        break;
      case 'FP64':
        view.setFloat64(at, random.next() * 2 - 1, true);
        break;
      case 'FP16':
        // Any bits with an exponent from 2^-5 to 2^-1, either sign.
        view.setUint16(at, (random.below(2) << 15) | ((10 + random.below(5)) << 10) | random.below(1024), true);
        break;
      case 'BF16':
        view.setUint16(at, (random.below(2) << 15) | ((122 + random.below(5)) << 7) | random.below(128), true);
        break;
      case 'INT8':
      case 'UINT8':
        // Small integers are quantised values or pixels more often than indexes.
        view.setUint8(at, random.below(below > 1 ? 128 : 1));
        break;
      default:
        view.setUint8(at, random.below(below));
    }
  }
  return { name, datatype, shape, data };
}
