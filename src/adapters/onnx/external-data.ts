/**
 * Files that an ONNX model keeps its weights in, for the build of ONNX Runtime that cannot open files itself.
 *
 * Finds the `location` of every external tensor, in the graph, in attributes and in subgraphs. Only plain relative paths
 * inside the model's folder are accepted.
 */
import { intarsiaError } from '#core/errors.js';
import { WireReader, wireType } from '#core/wire.js';

/** Locations in order of appearance, each once. @throws MODEL_INVALID for a path that leaves the folder, INVALID_ARGUMENT for bytes that are not protobuf. */
export function externalDataLocations(model: Uint8Array): readonly string[] {
  const locations = new Set<string>();
  const reader = new WireReader(model);
  while (reader.next()) {
    if (reader.field === 7 && reader.type === wireType.bytes) graph(reader.message(), locations, 0);
    else reader.skip();
  }
  for (const location of locations) {
    const parts = location.split(/[\\/]/);
    if (location === '' || parts.includes('..') || parts[0] === '' || /^[A-Za-z]:/.test(location)) {
      throw intarsiaError(
        'MODEL_INVALID',
        `external data ${JSON.stringify(location)} is not a path inside the model's folder`,
      );
    }
  }
  return [...locations];
}

const depthMax = 100;

function graph(reader: WireReader, locations: Set<string>, depth: number): void {
  if (depth > depthMax) throw intarsiaError('MODEL_INVALID', `subgraphs are nested more than ${depthMax} deep`);
  while (reader.next()) {
    if (reader.type !== wireType.bytes) reader.skip();
    else if (reader.field === 5) tensor(reader.message(), locations);
    else if (reader.field === 1) node(reader.message(), locations, depth);
    else reader.skip();
  }
}

function node(reader: WireReader, locations: Set<string>, depth: number): void {
  while (reader.next()) {
    if (reader.field === 5 && reader.type === wireType.bytes) attribute(reader.message(), locations, depth);
    else reader.skip();
  }
}

function attribute(reader: WireReader, locations: Set<string>, depth: number): void {
  while (reader.next()) {
    if (reader.type !== wireType.bytes) reader.skip();
    else if (reader.field === 5 || reader.field === 10) tensor(reader.message(), locations);
    else if (reader.field === 6 || reader.field === 11) graph(reader.message(), locations, depth + 1);
    else reader.skip();
  }
}

function tensor(reader: WireReader, locations: Set<string>): void {
  while (reader.next()) {
    if (reader.field !== 13 || reader.type !== wireType.bytes) {
      reader.skip();
      continue;
    }
    const pair = reader.message();
    let key = '';
    let value = '';
    while (pair.next()) {
      if (pair.field === 1) key = pair.string();
      else if (pair.field === 2) value = pair.string();
      else pair.skip();
    }
    if (key === 'location') locations.add(value);
  }
}
