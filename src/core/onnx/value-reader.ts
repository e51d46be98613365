/**
 * Reads ValueInfoProto and TypeProto. Presence matters: a tensor type without a shape has an unknown rank, one with an
 * empty shape is a scalar.
 */
import { intarsiaError } from '../errors.js';
import { wireType } from '../wire.js';
import type { WireReader } from '../wire.js';
import type { Dimension, Encoded, ValueType, ValueView } from './model-view.js';
import type { ReadBudget } from './read-budget.js';

const valueField = { name: 1, type: 2 } as const;
const typeField = { tensor: 1, sequence: 4, map: 5, opaque: 7, sparseTensor: 8, optional: 9 } as const;
const tensorTypeField = { elemType: 1, shape: 2 } as const;
const dimensionField = { value: 1, param: 2 } as const;

/** Reads one ValueInfoProto. */
export function readValue(reader: WireReader, place: Encoded, budget: ReadBudget): ValueView {
  let name = '';
  let type: ValueType | undefined;
  while (reader.next()) {
    switch (reader.field) {
      case valueField.name:
        name = budget.text(reader);
        break;
      case valueField.type:
        if (type !== undefined) throw twice('type of value', name);
        type = budget.message(reader, (inner) => readType(inner, name, budget));
        break;
      default:
        reader.skip();
    }
  }
  return { start: place.start, bodyStart: place.bodyStart, end: place.end, name, type };
}

function readType(reader: WireReader, name: string, budget: ReadBudget): ValueType | undefined {
  let type: ValueType | undefined;
  while (reader.next()) {
    const { field } = reader;
    const kind = kindOfField(field);
    if (kind === undefined) {
      reader.skip();
      continue;
    }
    if (type !== undefined) throw twice('type of value', name);
    if (kind === 'tensor' || kind === 'sparse-tensor') {
      type = budget.message(reader, (inner) => readTensorType(inner, kind, name, budget));
    } else {
      reader.expect(wireType.bytes);
      reader.skip();
      type = { kind };
    }
  }
  return type;
}

function kindOfField(field: number): ValueType['kind'] | undefined {
  switch (field) {
    case typeField.tensor:
      return 'tensor';
    case typeField.sparseTensor:
      return 'sparse-tensor';
    case typeField.sequence:
      return 'sequence';
    case typeField.map:
      return 'map';
    case typeField.optional:
      return 'optional';
    case typeField.opaque:
      return 'opaque';
    default:
      return undefined;
  }
}

function readTensorType(
  reader: WireReader,
  kind: 'tensor' | 'sparse-tensor',
  name: string,
  budget: ReadBudget,
): ValueType {
  let dataType = 0;
  let shape: readonly Dimension[] | undefined;
  while (reader.next()) {
    switch (reader.field) {
      case tensorTypeField.elemType:
        reader.expect(wireType.varint);
        dataType = reader.varint();
        break;
      case tensorTypeField.shape:
        if (shape !== undefined) throw twice('shape of value', name);
        shape = budget.message(reader, (inner) => readShape(inner, budget));
        break;
      default:
        reader.skip();
    }
  }
  return { kind, dataType, shape };
}

function readShape(reader: WireReader, budget: ReadBudget): readonly Dimension[] {
  const shape: Dimension[] = [];
  while (reader.next()) {
    if (reader.field === 1) shape.push(budget.message(reader, (inner) => readDimension(inner, budget)));
    else reader.skip();
  }
  return shape;
}

function readDimension(reader: WireReader, budget: ReadBudget): Dimension {
  let size = -1;
  let symbol = '';
  while (reader.next()) {
    switch (reader.field) {
      case dimensionField.value:
        reader.expect(wireType.varint);
        // Some exporters write -1 for a size that may vary.
        size = Math.max(-1, reader.int53());
        symbol = '';
        break;
      case dimensionField.param:
        symbol = budget.text(reader);
        size = -1;
        break;
      default:
        reader.skip();
    }
  }
  return { size, symbol };
}

/** Readers of protobuf merge a message that appears twice, each a little differently: such a file is refused. */
function twice(what: string, name: string): Error {
  return intarsiaError('MODEL_INVALID', `the ${what} ${JSON.stringify(name)} appears twice`, { name });
}
