/** An answer as callers read it: outputs by name, and the receipt that says where it ran, how long, and at what cost. */
import { isDatatype } from '#core/datatype.js';
import { intarsiaError } from '#core/errors.js';
import type { InferParameters, InferResponseMessage } from '#core/inference-message.js';
import { receiptOfParameters, type ClientReceipt } from './client-receipt.js';
import { OutputTensor } from './tensor-output.js';

export class InferResult {
  readonly model: string;
  /** The version that answered. */
  readonly version: string;
  /** The request's id. */
  readonly id: string;
  readonly outputs: readonly OutputTensor[];
  readonly parameters: InferParameters;
  /** Absent when the server writes no receipts. */
  readonly receipt: ClientReceipt | undefined;

  /** @throws INTERNAL when the server names a datatype that the protocol does not have. */
  constructor(message: InferResponseMessage) {
    this.model = message.modelName;
    this.version = message.modelVersion;
    this.id = message.id;
    this.parameters = message.parameters;
    this.receipt = receiptOfParameters(message.parameters);
    this.outputs = message.outputs.map(({ name, datatype, shape, data }) => {
      if (!isDatatype(datatype)) {
        throw intarsiaError(
          'INTERNAL',
          `the server's output '${name}' has the unknown datatype '${datatype.slice(0, 80)}'`,
        );
      }
      return new OutputTensor({ name, datatype, shape, data });
    });
  }

  /** The output of this name; without a name the only one. @throws NOT_FOUND, naming the outputs there are. */
  output(name?: string): OutputTensor {
    const found =
      name === undefined
        ? this.outputs.length === 1
          ? this.outputs[0]
          : undefined
        : this.outputs.find((output) => output.name === name);
    if (found !== undefined) return found;
    const names = this.outputs.map((output) => output.name).join(', ');
    throw intarsiaError(
      'NOT_FOUND',
      name === undefined
        ? `the answer of model '${this.model}' has ${this.outputs.length} outputs (${names}): say which`
        : `the answer of model '${this.model}' has no output '${name}'; it has ${names}`,
      { model: this.model },
    );
  }
}
