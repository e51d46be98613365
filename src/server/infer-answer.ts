/** The answer to a client, made of what the device computed: outputs, classes where they were asked for, the receipt. */
import type { ServedModel } from '#core/catalog.js';
import { releaseOutputs, type InferenceSuccess } from '#core/inference.js';
import {
  noParameters,
  type InferParameter,
  type InferRequestMessage,
  type InferResponseMessage,
  type InferTensor,
} from '#core/inference-message.js';
import type { RequestId } from '#core/ids.js';
import type { Tensor } from '#core/tensor.js';
import { classify } from './classification.js';
import { addReceipt } from './receipt-parameters.js';

export interface AnswerParts {
  readonly message: InferRequestMessage;
  readonly model: ServedModel;
  /** Classes wanted by output; undefined for none. */
  readonly classes: ReadonlyMap<string, number> | undefined;
  readonly receipts: boolean;
  /** The host that computed; empty outside of a grid. */
  readonly host: string;
  /** Number of the request at this gateway: what `intarsia explain` asks for. */
  readonly request?: RequestId;
}

/** @throws INVALID_ARGUMENT when an output cannot be classified. */
export function answerOf(outcome: InferenceSuccess, parts: AnswerParts): InferResponseMessage {
  const { message, model, classes } = parts;
  const outputs: InferTensor[] = [];
  for (const tensor of outcome.outputs) {
    const { name, datatype, shape, data } = classes === undefined ? tensor : classified(tensor, model, classes);
    outputs.push({ name, datatype, shape, parameters: noParameters, data });
  }
  let parameters = noParameters;
  if (parts.receipts) {
    const receipt = new Map<string, InferParameter>();
    addReceipt(receipt, outcome.receipt, parts.host);
    if (parts.request !== undefined) receipt.set('intarsia_request', { kind: 'int64', value: BigInt(parts.request) });
    parameters = receipt;
  }
  return {
    modelName: model.name,
    modelVersion: model.version,
    id: message.id,
    parameters,
    outputs,
    rawContents: message.rawContents,
    release: outcome[releaseOutputs],
  };
}

function classified(tensor: Tensor, model: ServedModel, classes: ReadonlyMap<string, number>): Tensor {
  const count = classes.get(tensor.name) ?? 0;
  if (count === 0) return tensor;
  return classify(tensor, {
    count,
    batches: model.config.maxBatchSize > 0,
    labels: model.labels.get(tensor.name) ?? [],
  });
}
