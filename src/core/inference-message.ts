/**
 * An inference request and its answer as they cross a wire, whatever the protocol: names and datatypes are still texts
 * that nobody has checked, tensors are raw bytes already. The gateway turns them into an `InferenceRequest`.
 */
import type { Shape } from './tensor.js';

/** A parameter of a request, tensor or answer. 64-bit numbers stay exact. */
export type InferParameter =
  | { readonly kind: 'bool'; readonly value: boolean }
  | { readonly kind: 'int64'; readonly value: bigint }
  | { readonly kind: 'uint64'; readonly value: bigint }
  | { readonly kind: 'double'; readonly value: number }
  | { readonly kind: 'string'; readonly value: string };

export type InferParameters = ReadonlyMap<string, InferParameter>;

/** Shared by everything without parameters. */
export const noParameters: InferParameters = new Map();

/** One tensor of a message. */
export interface InferTensor {
  readonly name: string;
  /** As the sender wrote it; see `isDatatype`. */
  readonly datatype: string;
  readonly shape: Shape;
  readonly parameters: InferParameters;
  /** Little-endian, row-major. A view on the message where the wire format allows it. */
  readonly data: Uint8Array;
}

export interface RequestedOutput {
  readonly name: string;
  readonly parameters: InferParameters;
}

export interface InferRequestMessage {
  readonly modelName: string;
  /** Empty: the server chooses. */
  readonly modelVersion: string;
  /** Echoed in the answer. */
  readonly id: string;
  readonly parameters: InferParameters;
  readonly inputs: readonly InferTensor[];
  /** Empty: every output. */
  readonly outputs: readonly RequestedOutput[];
  /** Whether tensors travel as raw bytes rather than as lists of numbers; the answer follows the request. */
  readonly rawContents: boolean;
}

export interface InferResponseMessage {
  readonly modelName: string;
  readonly modelVersion: string;
  readonly id: string;
  readonly parameters: InferParameters;
  readonly outputs: readonly InferTensor[];
  readonly rawContents: boolean;
  /** May be called once the answer is written: the memory of its outputs is used again. */
  readonly release?: (() => void) | undefined;
}

/** Most inputs or outputs of one message; beyond it the message is refused before memory is spent on it. */
export const tensorsMax = 4096;
/** Most parameters of one request or tensor. */
export const parametersMax = 1024;
/** Most dimensions of a tensor. */
export const dimensionsMax = 64;
