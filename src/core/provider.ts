/** Engines that run models: ONNX Runtime's execution providers, and kinds of our own. */

export const executionProviders = [
  'cpu',
  'wasm',
  'webgpu',
  'cuda',
  'tensorrt',
  'coreml',
  'dml',
  'qnn',
  'remote',
  'none',
] as const;
/** `remote` is another inference server; `none` computes nothing (an emulated device without an engine). */
export type ExecutionProvider = (typeof executionProviders)[number];

export const optimizationLevels = ['disabled', 'basic', 'extended', 'all'] as const;
/** ONNX Runtime's graph optimisation levels, weakest first. */
export type OptimizationLevel = (typeof optimizationLevels)[number];
