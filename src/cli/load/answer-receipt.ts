/** The receipt in an answer of each protocol. An answer that cannot be read has none: load is not the place to judge it. */
import { decodeInferResponse, decodeStreamInferResponse } from '#core/inference-wire.js';
import type { InferParameter, InferParameters } from '#core/inference-message.js';
import type { LoadProtocol } from '#ports/load-transport.js';
import { receiptOfParameters, type ClientReceipt } from '#client/index.js';

export function receiptReader(protocol: LoadProtocol): (answer: Uint8Array) => ClientReceipt | undefined {
  return (answer) => {
    try {
      return receiptOfParameters(parametersOf(protocol, answer));
    } catch {
      return undefined;
    }
  };
}

function parametersOf(protocol: LoadProtocol, answer: Uint8Array): InferParameters {
  if (protocol === 'grpc' || protocol === 'client') return decodeInferResponse(answer).parameters;
  if (protocol === 'grpc-stream') return decodeStreamInferResponse(answer).response?.parameters ?? new Map();
  return restParameters(answer);
}

const utf8 = new TextDecoder();

/** The JSON part of a body ends where its braces close; tensors may follow as bytes. */
function restParameters(answer: Uint8Array): InferParameters {
  const json: unknown = JSON.parse(utf8.decode(answer.subarray(0, jsonEnd(answer))));
  const parameters = new Map<string, InferParameter>();
  const given = (json as { parameters?: Record<string, unknown> }).parameters ?? {};
  for (const [name, value] of Object.entries(given)) {
    if (typeof value === 'string') parameters.set(name, { kind: 'string', value });
    else if (typeof value === 'boolean') parameters.set(name, { kind: 'bool', value });
    else if (typeof value === 'number') parameters.set(name, { kind: 'double', value });
  }
  return parameters;
}

const braceOpen = 0x7b;
const braceClose = 0x7d;
const quote = 0x22;
const backslash = 0x5c;

function jsonEnd(bytes: Uint8Array): number {
  let depth = 0;
  let inText = false;
  for (let at = 0; at < bytes.byteLength; at += 1) {
    const byte = bytes[at];
    if (inText) {
      if (byte === backslash) at += 1;
      else if (byte === quote) inText = false;
    } else if (byte === quote) inText = true;
    else if (byte === braceOpen) depth += 1;
    else if (byte === braceClose) {
      depth -= 1;
      if (depth === 0) return at + 1;
    }
  }
  return bytes.byteLength;
}
