/**
 * What ONNX Runtime's error messages mean in the product's codes. Its JavaScript errors carry a text and nothing else, so
 * the text decides; what is not recognised stays the general code of the phase.
 */
import { IntarsiaError, intarsiaError, messageOf } from '#core/errors.js';

const outOfMemory = /bad_?alloc|bad allocation|failed to allocate|out of memory|cannot allocate|memory allocation/i;
const deviceMissing =
  /no available backend|failed to (get|request|find) .*adapter|onnxruntime_providers_\w+\.(so|dll|dylib)|libcud|libcublas|cuda failure|failed to load library|LoadLibrary failed|no such adapter|webgpu .*not (available|supported)/i;
const badInput =
  /invalid (rank|dimensions) for input|got invalid dimensions|unexpected input data type|invalid feed input|is missing in 'feeds'|invalid input name|missing input/i;

/** @param what Such as `model resnet50 version 1`. */
export function loadFailure(thrown: unknown, what: string): IntarsiaError {
  if (thrown instanceof IntarsiaError) return thrown;
  const text = oneLine(thrown);
  const code = outOfMemory.test(text)
    ? 'OUT_OF_MEMORY'
    : deviceMissing.test(text)
      ? 'DEVICE_UNAVAILABLE'
      : 'MODEL_INVALID';
  return intarsiaError(code, `${what} cannot be loaded: ${text}`, {}, thrown);
}

export function runFailure(thrown: unknown): IntarsiaError {
  if (thrown instanceof IntarsiaError) return thrown;
  const text = oneLine(thrown);
  const code = badInput.test(text) ? 'INVALID_ARGUMENT' : outOfMemory.test(text) ? 'OUT_OF_MEMORY' : 'EXECUTION_FAILED';
  return intarsiaError(code, `the model failed to run: ${text}`, {}, thrown);
}

/** Messages can quote whole graphs: one line, bounded. */
function oneLine(thrown: unknown): string {
  const text = messageOf(thrown).replaceAll(/\s+/g, ' ').trim();
  return text.length <= 600 ? text : `${text.slice(0, 600)} …`;
}
