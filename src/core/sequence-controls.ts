/**
 * The control tensors of stateful models: START, READY, END as a number or a boolean, CORRID as the sequence's id.
 */
import { encodeBytesElements } from './tensor.js';
import { intarsiaError, type IntarsiaError } from './errors.js';
import type { Datatype } from './datatype.js';
import type { SequenceStep } from './inference.js';
import type { SequenceControl } from './model-config.js';

/** The bytes of one control for one request. The request is really there, so READY is true. */
export function controlChunk(control: SequenceControl, step: SequenceStep): Uint8Array {
  switch (control.kind) {
    case 'START':
      return scalar(control.datatype, control.falseTrue[step.start ? 1 : 0]);
    case 'END':
      return scalar(control.datatype, control.falseTrue[step.end ? 1 : 0]);
    case 'READY':
      return scalar(control.datatype, control.falseTrue[1]);
    case 'CORRID':
      return correlation(control.datatype, step.id);
  }
}

const integerRange: Partial<Record<Datatype, readonly [bigint, bigint]>> = {
  UINT64: [0n, 2n ** 64n - 1n],
  INT64: [-(2n ** 63n), 2n ** 63n - 1n],
  UINT32: [0n, 2n ** 32n - 1n],
  INT32: [-(2n ** 31n), 2n ** 31n - 1n],
};

/** Why this id cannot be given to the model as its CORRID control; undefined when it can. */
export function correlationRefusal(
  control: SequenceControl,
  id: SequenceStep['id'],
  model: string,
): IntarsiaError | undefined {
  const range = integerRange[control.datatype];
  if (range === undefined) return undefined;
  if (typeof id === 'bigint' && id >= range[0] && id <= range[1]) return undefined;
  const kind = typeof id === 'bigint' ? 'number' : 'text';
  return intarsiaError(
    'INVALID_ARGUMENT',
    `the correlation ID of a sequence of model '${model}' must fit ${control.datatype}; it is the ${kind} ${String(id).slice(0, 80)}`,
  );
}

function correlation(datatype: Datatype, id: SequenceStep['id']): Uint8Array {
  if (datatype === 'BYTES') return encodeBytesElements([new TextEncoder().encode(String(id))]);
  const data = new Uint8Array(datatype.endsWith('64') ? 8 : 4);
  const view = new DataView(data.buffer);
  const value = BigInt(id);
  if (data.byteLength === 8) view.setBigUint64(0, BigInt.asUintN(64, value), true);
  else view.setUint32(0, Number(BigInt.asUintN(32, value)), true);
  return data;
}

function scalar(datatype: Datatype, value: number): Uint8Array {
  switch (datatype) {
    case 'FP32': {
      const data = new Uint8Array(4);
      new DataView(data.buffer).setFloat32(0, value, true);
      return data;
    }
    case 'INT32': {
      const data = new Uint8Array(4);
      new DataView(data.buffer).setInt32(0, value, true);
      return data;
    }
    case 'BOOL':
      return Uint8Array.of(value === 0 ? 0 : 1);
    default:
      throw intarsiaError(
        'MODEL_INVALID',
        `a sequence control is INT32, FP32 or BOOL; it is configured as ${datatype}`,
      );
  }
}
