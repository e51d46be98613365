/**
 * A training state as text and back: JSON in which arrays of numbers are base64 of their bytes, so that nothing is rounded
 * and a resumed run goes on with exactly the numbers it stopped with.
 */
import { intarsiaError, messageOf } from '#core/errors.js';
import { stages, type TrainingState } from './training-plan.js';

const arrayTypes = { f32: Float32Array, f64: Float64Array } as const;

/** Version of the format; another one is refused. */
const format = 3;

export function packState(state: TrainingState): string {
  return JSON.stringify({ format, state }, (_key, value: unknown) => {
    if (value instanceof Float32Array) return { f32: toBase64(value) };
    if (value instanceof Float64Array) return { f64: toBase64(value) };
    return value;
  });
}

/** @throws CONFIG_INVALID when the text is no state of this version. */
export function unpackState(text: string, name: string): TrainingState {
  let read: { readonly format?: unknown; readonly state?: TrainingState };
  try {
    read = JSON.parse(text, (_key, value: unknown) => {
      if (typeof value !== 'object' || value === null) return value;
      for (const [kind, Type] of Object.entries(arrayTypes)) {
        const packed = (value as Record<string, unknown>)[kind];
        if (typeof packed === 'string') return new Type(fromBase64(packed));
      }
      return value;
    }) as typeof read;
  } catch (error) {
    throw intarsiaError('CONFIG_INVALID', `${name} is no training state: ${messageOf(error)}`, { name });
  }
  if (read.format !== format || read.state === undefined || !stages.includes(read.state.stage)) {
    throw intarsiaError('CONFIG_INVALID', `${name} is no training state of format ${format}`, { name });
  }
  // JSON leaves out what is undefined; the order of fields is that of a state never saved, so that bytes stay the same.
  const { state } = read;
  return {
    stage: state.stage,
    step: state.step,
    teacher: state.teacher,
    fallback: state.fallback,
    ruleObjectives: state.ruleObjectives,
    ruleMisses: state.ruleMisses,
    layers: state.layers,
    batchLayers: state.batchLayers,
    ranges: state.ranges,
    batchRanges: state.batchRanges,
    search: state.search,
    optimisation: state.optimisation,
    best: state.best,
    curves: state.curves,
  };
}

function toBase64(values: Float32Array | Float64Array): string {
  let text = '';
  for (const byte of new Uint8Array(values.buffer, values.byteOffset, values.byteLength)) {
    text += String.fromCharCode(byte);
  }
  return btoa(text);
}

function fromBase64(text: string): ArrayBuffer {
  const decoded = atob(text);
  return Uint8Array.from(decoded, (character) => character.charCodeAt(0)).buffer;
}
