/** A REST request that is nothing but the bytes of a model's only input: what the tensor is follows from the model. */
import { datatypeBytes } from '#core/datatype.js';
import { intarsiaError } from '#core/errors.js';
import type { ModelName } from '#core/ids.js';
import { encodeBytesElements, formatShape, type Tensor } from '#core/tensor.js';
import type { Caller } from '#ports/inference-gateway.js';
import { findServedModel, modelForbidden } from './find-model.js';
import type { Router } from './router.js';

/**
 * The tensor that a raw body is: one item; the one size that may vary follows from the bytes; a BYTES input takes the body
 * as its only element.
 * @throws INVALID_ARGUMENT when the model has several inputs, more than one size that varies, or no size fits the bytes.
 */
export function rawInputOf(
  router: Router,
  model: { readonly name: string; readonly version: string },
  body: Uint8Array,
  caller: Caller,
): Tensor {
  if (!caller.mayUse(model.name)) throw modelForbidden(model.name);
  const entry = router.current.catalog.models.get(model.name as ModelName);
  const served = findServedModel(entry, model.name, model.version);
  const [input] = served.inputs;
  if (input === undefined || served.inputs.length !== 1) {
    throw refused(`a raw binary request needs a model with one input; '${served.name}' has ${served.inputs.length}`);
  }
  const { name, datatype } = input;
  const shape = served.config.maxBatchSize > 0 ? [1, ...input.shape.slice(1)] : [...input.shape];
  const varying = shape.filter((size) => size === -1).length;
  const elementBytes = datatypeBytes(datatype);
  if (elementBytes === 0) {
    if (varying > 0) shape.fill(1);
    if (shape.some((size) => size !== 1)) {
      throw refused(`a raw binary request needs an input of one text; '${name}' has shape ${formatShape(input.shape)}`);
    }
    return { name, datatype, shape, data: encodeBytesElements([body]) };
  }
  if (varying > 1) {
    throw refused(
      `a raw binary request needs an input with at most one size that varies; '${name}' has shape ${formatShape(input.shape)}`,
    );
  }
  const fixed = shape.reduce((product, size) => (size === -1 ? product : product * size), elementBytes);
  if (varying === 1) {
    const size = fixed === 0 ? 0 : body.byteLength / fixed;
    if (!Number.isInteger(size)) {
      throw refused(
        `the body has ${body.byteLength} bytes, which is no multiple of the ${fixed} bytes of input '${name}'`,
      );
    }
    shape[shape.indexOf(-1)] = size;
  }
  return { name, datatype, shape, data: body };
}

function refused(message: string): Error {
  return intarsiaError('INVALID_ARGUMENT', message);
}
