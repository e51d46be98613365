/** The body of an inference request in each protocol, built once and sent many times. */
import { encodeInferRequest } from '#core/inference-wire.js';
import { noParameters } from '#core/inference-message.js';
import { datatypeBytes } from '#core/datatype.js';
import { intarsiaError } from '#core/errors.js';
import type { LoadProtocol } from '#ports/load-transport.js';
import type { Tensor } from '#core/tensor.js';
import { OutputTensor } from '#client/index.js';

export interface LoadModel {
  readonly name: string;
  /** Empty: the server chooses. */
  readonly version: string;
}

export interface LoadBody {
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
}

const utf8 = new TextEncoder();

/** @throws INVALID_ARGUMENT when the protocol cannot carry a datatype: JSON has no 16-bit floating point numbers. */
export function requestBody(protocol: LoadProtocol, model: LoadModel, tensors: readonly Tensor[]): LoadBody {
  switch (protocol) {
    case 'grpc':
    case 'client':
      return { path: '/inference.GRPCInferenceService/ModelInfer', headers: {}, body: grpcBody(model, tensors) };
    case 'grpc-stream':
      return { path: '/inference.GRPCInferenceService/ModelStreamInfer', headers: {}, body: grpcBody(model, tensors) };
    case 'rest-json':
      return {
        path: restPath(model),
        headers: { 'content-type': 'application/json' },
        body: utf8.encode(JSON.stringify({ inputs: tensors.map(jsonInput) })),
      };
    case 'rest-binary':
      return restBinaryBody(model, tensors);
  }
}

function grpcBody(model: LoadModel, tensors: readonly Tensor[]): Uint8Array {
  return encodeInferRequest({
    modelName: model.name,
    modelVersion: model.version,
    id: '',
    parameters: noParameters,
    inputs: tensors.map((tensor) => ({ ...tensor, parameters: noParameters })),
    outputs: [],
    rawContents: true,
  }).toBytes();
}

function restPath({ name, version }: LoadModel): string {
  const model = `/v2/models/${encodeURIComponent(name)}`;
  return version === '' ? `${model}/infer` : `${model}/versions/${encodeURIComponent(version)}/infer`;
}

function jsonInput(tensor: Tensor): object {
  const { name, datatype, shape } = tensor;
  if (datatype === 'FP16' || datatype === 'BF16') {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `input '${name}' is ${datatype}, which JSON cannot carry: use rest-binary or grpc`,
    );
  }
  const values = new OutputTensor(tensor).toArray();
  return {
    name,
    datatype,
    shape,
    data: datatypeBytes(datatype) === 8 && datatype !== 'FP64' ? values.map(Number) : values,
  };
}

function restBinaryBody(model: LoadModel, tensors: readonly Tensor[]): LoadBody {
  const header = utf8.encode(
    JSON.stringify({
      parameters: { binary_data_output: true },
      inputs: tensors.map(({ name, datatype, shape, data }) => ({
        name,
        datatype,
        shape,
        parameters: { binary_data_size: data.byteLength },
      })),
    }),
  );
  const bytes = tensors.reduce((sum, { data }) => sum + data.byteLength, header.byteLength);
  const body = new Uint8Array(bytes);
  body.set(header, 0);
  let offset = header.byteLength;
  for (const { data } of tensors) {
    body.set(data, offset);
    offset += data.byteLength;
  }
  return {
    path: restPath(model),
    headers: {
      'content-type': 'application/octet-stream',
      'inference-header-content-length': String(header.byteLength),
    },
    body,
  };
}
