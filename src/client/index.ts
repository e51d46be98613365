/** `intarsia/client`: the typed client. It brings the wire codecs and a gRPC library along, and nothing of the server. */
export { connect, InferenceClient } from './client.js';
export type { LoadOptions, ManualStream, ModelCallOptions, StreamOptions, StreamRequest } from './client.js';
export type { CallOptions, CallStatistics } from './caller.js';
export { receiptOfParameters } from './client-receipt.js';
export type { ClientReceipt } from './client-receipt.js';
export { GridCalls } from './grid-calls.js';
export type {
  DeployResult,
  GridDeployment,
  GridEvent,
  PreparedSplit,
  GridHost,
  GridReplica,
  GridStatus,
  OrderResult,
  PolicyBook,
  PolicyResult,
} from './grid-calls.js';
export type { InferInputs, InferOptions, OutputRequest, ParameterValue, SequenceOptions } from './infer-request.js';
export { InferResult } from './infer-result.js';
export type { StreamItem } from './infer-stream.js';
export type { Balancing, ClientOptions, EjectionOptions, RetryOptions } from './options.js';
export type {
  DurationTotal,
  JsonValue,
  ModelConfigJson,
  ModelMetadata,
  ModelStatistics,
  RepositoryModel,
  ServerMetadata,
} from './server-answers.js';
export { toTensor } from './tensor-input.js';
export type { InputValue, NestedValues, NumberArray, Scalar, TensorLike } from './tensor-input.js';
export { OutputTensor } from './tensor-output.js';
export type { Classification, NestedOutput } from './tensor-output.js';
export { IntarsiaError, type ErrorCode } from '#core/errors.js';
export type { Datatype } from '#core/datatype.js';
export type { Shape, Tensor, TensorSpec } from '#core/tensor.js';
