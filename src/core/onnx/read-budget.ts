/**
 * What a hostile file may cost: how deep its messages nest and how many pieces it may have.
 *
 * A model file is untrusted input. Two bytes can claim to be a node, so that a file of 2 GiB could ask for a thousand
 * million objects; the reader counts what it makes and stops at a bound far above every real model.
 */
import { intarsiaError } from '../errors.js';
import { wireType } from '../wire.js';
import type { WireReader } from '../wire.js';
import type { Encoded } from './model-view.js';

/** Messages inside messages, as common protobuf readers allow. */
const messageDepthMax = 100;
/**
 * Names and numbers that are kept, a message (node, tensor, value, attribute) counting as four. The largest models in
 * use have some 100,000; a file at the bound takes about 400 MB while it is read.
 */
const piecesMax = 4_000_000;
const messagePieces = 4;

export class ReadBudget {
  #depth = 0;
  #pieces = 0;

  /** Counts pieces that are about to be kept. @throws MODEL_INVALID beyond the bound. */
  take(pieces: number): void {
    this.#pieces += pieces;
    if (this.#pieces > piecesMax) throw tooMany();
  }

  /** Reads the message that is the current field. @throws MODEL_INVALID when it nests too deep. */
  message<Value>(reader: WireReader, read: (inner: WireReader, place: Encoded) => Value): Value {
    reader.expect(wireType.bytes);
    const start = reader.fieldStart;
    const inner = reader.message();
    this.take(messagePieces);
    this.#depth += 1;
    if (this.#depth > messageDepthMax) {
      throw intarsiaError(
        'MODEL_INVALID',
        `the model nests messages deeper than ${messageDepthMax}, at byte ${start}`,
        {
          depthMax: messageDepthMax,
          offset: start,
        },
      );
    }
    const value = read(inner, { start, bodyStart: inner.position, end: inner.end });
    this.#depth -= 1;
    return value;
  }

  /** Reads a text that is kept. */
  text(reader: WireReader): string {
    reader.expect(wireType.bytes);
    this.take(1);
    return reader.string();
  }
}

function tooMany(): Error {
  return intarsiaError(
    'MODEL_INVALID',
    `the model has more nodes, tensors, values and names than are read: ${piecesMax}, a message counting as ${messagePieces}`,
    {
      piecesMax,
    },
  );
}
