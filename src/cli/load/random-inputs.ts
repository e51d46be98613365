/** Inputs for load made from a model's metadata and a seed: the same seed gives the same bytes. */
import { datatypeBytes } from '#core/datatype.js';
import { intarsiaError } from '#core/errors.js';
import { RandomStream } from '#core/random.js';
import { elementCount, encodeBytesElements, type Shape, type Tensor, type TensorSpec } from '#core/tensor.js';
import { formatBytes, GiB } from '#core/units.js';

export interface RandomInputOptions {
  readonly seed: string;
  /** Size of a first dimension that may vary: the batch. */
  readonly batch: number;
  /** Shapes by input, where the model leaves more than the batch open. */
  readonly shapes: ReadonlyMap<string, Shape>;
}

/** Bytes of the tensors of one request, at most. */
const requestBytesMax = 1 * GiB;

/**
 * One tensor for each specification: floating point numbers from 0 to 1, whole numbers from 0 to 9, words of 8 letters.
 * Sizes that may vary are `batch` in the first dimension and 1 elsewhere, unless `shapes` says otherwise.
 * @throws CONFIG_INVALID when a shape does not fit the model's.
 */
export function randomInputs(specs: readonly TensorSpec[], options: RandomInputOptions): Tensor[] {
  for (const name of options.shapes.keys()) {
    if (!specs.some((spec) => spec.name === name)) {
      throw intarsiaError(
        'CONFIG_INVALID',
        `--shape names '${name}'; the model's inputs are ${specs.map((spec) => spec.name).join(', ')}`,
      );
    }
  }
  const random = new RandomStream(options.seed);
  let bytes = 0;
  return specs.map((spec) => {
    const shape = concreteShape(spec, options);
    const data = randomData(spec, shape, random.stream(`input ${spec.name}`));
    bytes += data.byteLength;
    if (bytes > requestBytesMax) {
      throw intarsiaError(
        'CONFIG_INVALID',
        `one request would hold more than ${formatBytes(requestBytesMax)}; give smaller shapes`,
      );
    }
    return { name: spec.name, datatype: spec.datatype, shape, data };
  });
}

function concreteShape(spec: TensorSpec, options: RandomInputOptions): Shape {
  const given = options.shapes.get(spec.name);
  if (given === undefined) return spec.shape.map((size, axis) => (size >= 0 ? size : axis === 0 ? options.batch : 1));
  const fits =
    given.length === spec.shape.length &&
    given.every((size, axis) => spec.shape[axis] === -1 || spec.shape[axis] === size);
  if (!fits || given.some((size) => !Number.isSafeInteger(size) || size < 0)) {
    throw intarsiaError(
      'CONFIG_INVALID',
      `--shape ${spec.name}=${given.join(',')} does not fit the model's shape [${spec.shape.join(',')}], where -1 may be any size`,
    );
  }
  return given;
}

function randomData(spec: TensorSpec, shape: Shape, random: RandomStream): Uint8Array {
  const count = elementCount(shape);
  const size = datatypeBytes(spec.datatype);
  if (count * Math.max(size, 12) > requestBytesMax) {
    throw intarsiaError(
      'CONFIG_INVALID',
      `input '${spec.name}' of shape [${shape.join(',')}] is too large for a load request`,
    );
  }
  if (spec.datatype === 'BYTES') return encodeBytesElements(Array.from({ length: count }, () => randomWord(random)));
  const data = new Uint8Array(count * size);
  const view = new DataView(data.buffer);
  for (let index = 0; index < count; index += 1) {
    const at = index * size;
    switch (spec.datatype) {
      case 'FP32':
        view.setFloat32(at, random.next(), true);
        break;
      case 'FP64':
        view.setFloat64(at, random.next(), true);
        break;
      case 'FP16':
        // Exponent 14 and a random fraction: 0.5 to 1.
        view.setUint16(at, (14 << 10) | random.below(1024), true);
        break;
      case 'BF16':
        view.setUint16(at, (126 << 7) | random.below(128), true);
        break;
      case 'BOOL':
        view.setUint8(at, random.below(2));
        break;
      default:
        // Little-endian: the lowest byte holds a small number of any width.
        view.setUint8(at, random.below(10));
    }
  }
  return data;
}

function randomWord(random: RandomStream): Uint8Array {
  return Uint8Array.from({ length: 8 }, () => 97 + random.below(26));
}
