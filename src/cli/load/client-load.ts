/**
 * Load as a program in production makes it: `intarsia/client` with all its endpoints, discovery, retries and time limits of
 * attempts. It costs the generator several times more than the bare transports, so it shows what clients see in a fault, and
 * not how fast a host is.
 */
import { asIntarsiaError, intarsiaError } from '#core/errors.js';
import { decodeInferRequest, encodeInferResponse } from '#core/inference-wire.js';
import { isDatatype } from '#core/datatype.js';
import type { LoadDone, LoadTarget, LoadTransport } from '#ports/load-transport.js';
import type { CallStatistics, ClientOptions, InferInputs, InferResult, InferenceClient } from '#client/index.js';

/** How the transport gets its client; `connect` of `intarsia/client` fits. */
export type Connect = (options: ClientOptions) => InferenceClient;

export interface ClientLoad extends LoadTransport {
  /** Attempts, retries and refusals since it was opened. */
  readonly statistics: CallStatistics;
}

interface PreparedRequest {
  readonly model: string;
  readonly version: string;
  readonly inputs: InferInputs;
}

/** More than any plan keeps in flight: the plan bounds them, and says NOT_SENT. */
const inFlightMax = 1_000_000;

/**
 * A transport over a client of its own. `target.bodies` are messages of gRPC's ModelInfer; `target.address` names the
 * endpoints, with commas between them; what `options` says beside them (TLS, token) is kept.
 * @throws CONFIG_INVALID (options), INVALID_ARGUMENT (a body that is no request).
 */
export function openClientLoad(
  target: LoadTarget,
  connect: Connect,
  options: Omit<ClientOptions, 'endpoints'> = {},
): ClientLoad {
  const requests = target.bodies.map(prepare);
  const client = connect({
    ...options,
    endpoints: target.address.split(','),
    connections: target.connections,
    headers: target.headers,
    inFlightMax,
  });
  const callOptions = target.timeoutMs > 0 ? { timeoutMs: target.timeoutMs } : {};
  const open = new Set<LoadDone>();

  const run = async (request: PreparedRequest, wantsAnswer: boolean, done: LoadDone): Promise<void> => {
    open.add(done);
    let code = '';
    let answer: Uint8Array | undefined;
    try {
      const { model, version, inputs } = request;
      const named = version === '' ? callOptions : { ...callOptions, version };
      const result = await client.infer(model, inputs, named);
      if (wantsAnswer) answer = receiptOnly(result);
    } catch (error) {
      code = asIntarsiaError(error).code;
    }
    if (open.delete(done)) done(code, answer);
  };

  return {
    get statistics() {
      return client.statistics;
    },
    // One endpoint that answers is enough to begin with; the client looks for the others.
    open: async () => {
      await client.live();
    },
    send: (body, wantsAnswer, done) => {
      const request = requests[body];
      if (request === undefined) throw intarsiaError('INTERNAL', `there is no body number ${body}`);
      void run(request, wantsAnswer, done);
    },
    close: () => {
      const unanswered = [...open];
      open.clear();
      client.close();
      for (const done of unanswered) done('UNANSWERED', undefined);
    },
  };
}

function prepare(body: Uint8Array): PreparedRequest {
  const { modelName: model, modelVersion: version, inputs } = decodeInferRequest(body);
  const named = inputs.map(({ name, datatype, shape, data }) => {
    if (!isDatatype(datatype)) throw intarsiaError('INVALID_ARGUMENT', `input '${name}' has datatype '${datatype}'`);
    return [name, { datatype, shape, data }] as const;
  });
  return { model, version, inputs: Object.fromEntries(named) };
}

/** An answer without its tensors: what is read of it is the receipt. */
function receiptOnly({ model, version, id, parameters }: InferResult): Uint8Array {
  return encodeInferResponse({
    modelName: model,
    modelVersion: version,
    id,
    parameters,
    outputs: [],
    rawContents: true,
  }).toBytes();
}
