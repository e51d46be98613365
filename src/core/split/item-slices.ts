/**
 * The items of a batch apart and together again: parts of a request's tensors along their first dimension, as views, and
 * the answers of parts put where they belong. Every tensor has the batch in front; whoever asks has checked that.
 */
import { datatypeBytes } from '../datatype.js';
import { intarsiaError } from '../errors.js';
import { elementCount, formatShape, type Tensor } from '../tensor.js';
import type { ItemRange } from './chunk-book.js';

/** The inputs of a request, item by item. */
export class ItemSlices {
  readonly #inputs: readonly Tensor[];
  /** By input: where each item begins, and where the last one ends; undefined where all items have as many bytes. */
  readonly #offsets: readonly (readonly number[] | undefined)[];

  /** @param items Size of the first dimension of every input. */
  constructor(inputs: readonly Tensor[], items: number) {
    this.#inputs = inputs;
    this.#offsets = inputs.map((tensor) =>
      datatypeBytes(tensor.datatype) === 0 ? textOffsets(tensor, items) : undefined,
    );
  }

  slice({ from, items }: ItemRange): readonly Tensor[] {
    return this.#inputs.map(({ name, datatype, shape, data }, index) => {
      const [all = 1, ...rest] = shape;
      const offsets = this.#offsets[index];
      const itemBytes = data.byteLength / all;
      const begin = offsets?.[from] ?? from * itemBytes;
      const end = offsets?.[from + items] ?? (from + items) * itemBytes;
      return { name, datatype, shape: [items, ...rest], data: data.subarray(begin, end) };
    });
  }
}

function textOffsets({ shape, data }: Tensor, items: number): readonly number[] {
  const perItem = elementCount(shape.slice(1));
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const offsets = [0];
  let offset = 0;
  for (let item = 0; item < items; item += 1) {
    for (let element = 0; element < perItem; element += 1) offset += 4 + view.getUint32(offset, true);
    offsets.push(offset);
  }
  return offsets;
}

interface GatheredOutput {
  readonly name: string;
  readonly datatype: Tensor['datatype'];
  /** Without the batch. */
  readonly rest: readonly number[];
  /** Whole output, filled piece by piece; undefined for texts, whose pieces are joined in the end. */
  readonly whole: Uint8Array | undefined;
  readonly pieces: { readonly from: number; readonly data: Uint8Array }[];
}

/** The answers of the pieces of one request. Copies what it is given. */
export class Gathering {
  readonly #items: number;
  #outputs: readonly GatheredOutput[] | undefined;

  constructor(items: number) {
    this.#items = items;
  }

  /** @throws EXECUTION_FAILED when the pieces are not alike, or an output has not as many items as the piece. */
  add(range: ItemRange, outputs: readonly Tensor[]): void {
    this.#outputs ??= outputs.map((tensor) => this.#begin(tensor, range));
    if (outputs.length !== this.#outputs.length) {
      throw unlike(`a piece of the batch gave ${outputs.length} outputs, another ${this.#outputs.length}`);
    }
    this.#outputs.forEach((gathered, index) => {
      const tensor = outputs[index];
      if (tensor !== undefined) addPiece(gathered, tensor, range);
    });
  }

  /** The outputs of the whole request; every item was added. */
  finish(): readonly Tensor[] {
    return (this.#outputs ?? []).map(({ name, datatype, rest, whole, pieces }) => {
      const shape = [this.#items, ...rest];
      if (whole !== undefined) return { name, datatype, shape, data: whole };
      const sorted = [...pieces].sort((a, b) => a.from - b.from);
      const data = new Uint8Array(sorted.reduce((sum, piece) => sum + piece.data.byteLength, 0));
      let offset = 0;
      for (const piece of sorted) {
        data.set(piece.data, offset);
        offset += piece.data.byteLength;
      }
      return { name, datatype, shape, data };
    });
  }

  #begin({ name, datatype, shape, data }: Tensor, { items }: ItemRange): GatheredOutput {
    const rest = shape.slice(1);
    const isText = datatypeBytes(datatype) === 0;
    const whole = isText ? undefined : new Uint8Array((data.byteLength / items) * this.#items);
    return { name, datatype, rest, whole, pieces: [] };
  }
}

function addPiece(gathered: GatheredOutput, tensor: Tensor, { from, items }: ItemRange): void {
  const { name, datatype, rest, whole, pieces } = gathered;
  const expected = [items, ...rest];
  if (tensor.name !== name || tensor.datatype !== datatype || formatShape(tensor.shape) !== formatShape(expected)) {
    throw unlike(
      `output '${tensor.name}' of a piece of ${items} items is ${tensor.datatype} ${formatShape(tensor.shape)}; '${name}' ${datatype} ${formatShape(expected)} was expected, with the batch in front`,
    );
  }
  if (whole === undefined) pieces.push({ from, data: tensor.data.slice() });
  else whole.set(tensor.data, from * (tensor.data.byteLength / items));
}

function unlike(message: string): Error {
  return intarsiaError('EXECUTION_FAILED', `the pieces of a batch that was spread cannot be put together: ${message}`);
}
