/**
 * Another inference server that speaks the Open Inference Protocol (Triton, OpenVINO Model Server, MLServer, KServe,
 * another Intarsia) as an executor. Its models are its own: loading one here asks whether it is there, has it loaded where
 * the server allows that, and takes over its inputs and outputs.
 *
 * The server is probed regularly. One that does not answer several probes is lost, as a process is that stops answering
 * heartbeats; a single failed call is only that call's failure.
 */
import { isDatatype } from '#core/datatype.js';
import { asIntarsiaError, intarsiaError, messageOf, type IntarsiaError } from '#core/errors.js';
import { joinRanges } from '#core/frame.js';
import type { SessionId } from '#core/ids.js';
import { InFlight } from '#core/in-flight.js';
import { noParameters } from '#core/inference-message.js';
import { decodeInferResponse, encodeInferRequest } from '#core/inference-wire.js';
import { Loss } from '#core/loss.js';
import {
  countBytesElements,
  elementCount,
  formatShape,
  tensorBytes,
  type Tensor,
  type TensorSpec,
} from '#core/tensor.js';
import {
  ModelMetadataRequest,
  ModelMetadataResponse,
  ModelReadyRequest,
  ModelReadyResponse,
  RepositoryModelLoadRequest,
  RepositoryModelLoadResponse,
  ServerLiveRequest,
  ServerLiveResponse,
  ServerMetadataRequest,
  ServerMetadataResponse,
} from '#gen/inference.js';
import type {
  Executor,
  ExecutorDescription,
  ExecutorUsage,
  LoadedSession,
  LoadRequest,
  RunInput,
  RunRequest,
  RunResult,
} from '#ports/executor.js';
import { RemoteCalls, type RemoteEndpoint } from './remote-call.js';

export interface RemoteExecutorOptions extends RemoteEndpoint {
  /** Milliseconds until the server must answer at the start, default 10,000. */
  readonly startMsMax?: number;
  /** Milliseconds one run may take, default 600,000. */
  readonly runMsMax?: number;
  /** Milliseconds one load may take, default 1,800,000. */
  readonly loadMsMax?: number;
  /** Milliseconds between two probes, default 2,000. */
  readonly probeMs?: number;
  /** Probes in a row that may fail before the server counts as lost, default 3. */
  readonly probesMax?: number;
  /** Requests in flight, default 1,024. At the bound: RESOURCE_EXHAUSTED. */
  readonly inFlightMax?: number;
}

type Settings = Required<Omit<RemoteExecutorOptions, keyof RemoteEndpoint>> & RemoteEndpoint;

/** @throws DEVICE_UNAVAILABLE when the server does not answer or is not live. */
export async function startRemoteExecutor(options: RemoteExecutorOptions): Promise<Executor> {
  const settings: Settings = {
    startMsMax: 10_000,
    runMsMax: 600_000,
    loadMsMax: 1_800_000,
    probeMs: 2_000,
    probesMax: 3,
    inFlightMax: 1_024,
    ...options,
  };
  const calls = new RemoteCalls(settings);
  try {
    return new RemoteExecutor(settings, calls, await greet(calls, settings.startMsMax));
  } catch (error) {
    calls.close();
    throw intarsiaError(
      'DEVICE_UNAVAILABLE',
      `inference server ${settings.endpoint} cannot be used: ${messageOf(error)}`,
      {
        endpoint: settings.endpoint,
      },
    );
  }
}

/** Name and version of a live server. */
async function greet(calls: RemoteCalls, timeoutMs: number): Promise<string> {
  const live = { request: ServerLiveRequest, response: ServerLiveResponse };
  if (!(await calls.ask('ServerLive', live, {}, timeoutMs)).live) {
    throw intarsiaError('DEVICE_UNAVAILABLE', 'it answers, and says that it is not live');
  }
  const metadata = { request: ServerMetadataRequest, response: ServerMetadataResponse };
  const { name, version } = await calls.ask('ServerMetadata', metadata, {}, timeoutMs);
  return `${name === '' ? 'unnamed server' : name} ${version}`.trim();
}

interface Session {
  readonly model: LoadRequest['model'];
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
}

class RemoteExecutor implements Executor {
  readonly description: ExecutorDescription;
  readonly #settings: Settings;
  readonly #calls: RemoteCalls;
  readonly #sessions = new Map<SessionId, Session>();
  readonly #flights: InFlight<unknown>;
  readonly #loss = new Loss();
  #probe: NodeJS.Timeout | undefined;
  #probesFailed = 0;
  #closing = false;

  constructor(settings: Settings, calls: RemoteCalls, engine: string) {
    this.#settings = settings;
    this.#calls = calls;
    this.#flights = new InFlight(settings.inFlightMax);
    this.description = { provider: 'remote', isolation: 'remote', emulated: false, engine, concurrency: 1 };
    this.#scheduleProbe();
  }

  async load(request: LoadRequest): Promise<LoadedSession> {
    this.#refuseWhenGone();
    if (this.#sessions.has(request.session)) {
      throw intarsiaError('ALREADY_EXISTS', `session ${request.session} is loaded already`);
    }
    const startedMs = performance.now();
    const { inputs, outputs } = await this.#settle(() => this.#adopt(request.model));
    this.#sessions.set(request.session, { model: request.model, inputs, outputs });
    return {
      inputs,
      outputs,
      loadMs: performance.now() - startedMs,
      memoryBytes: 0,
      optimization: request.options.optimization,
      notes: [],
    };
  }

  async run(request: RunRequest): Promise<RunResult> {
    this.#refuseWhenGone();
    const session = this.#sessions.get(request.session);
    if (session === undefined) throw intarsiaError('NOT_FOUND', `session ${request.session} is not loaded`);
    const startedMs = performance.now();
    check(session, request);
    const message = encodeInferRequest({
      modelName: session.model.name,
      modelVersion: session.model.version,
      id: '',
      parameters: noParameters,
      inputs: request.inputs.map((input) => ({
        name: input.name,
        datatype: input.datatype,
        shape: input.shape,
        parameters: noParameters,
        data: joined(input),
      })),
      outputs: request.outputs.map((name) => ({ name, parameters: noParameters })),
      rawContents: true,
    }).toBytes();
    const sentMs = performance.now();
    const answer = await this.#settle(() => this.#calls.bytes('ModelInfer', message, this.#settings.runMsMax));
    const answeredMs = performance.now();
    const outputs = outputsOf(decodeInferResponse(answer).outputs, session, request);
    return {
      outputs,
      computeInputUs: (sentMs - startedMs) * 1000,
      computeInferUs: (answeredMs - sentMs) * 1000,
      computeOutputUs: (performance.now() - answeredMs) * 1000,
    };
  }

  /** Forgets the session. The model stays on its server, which may have other users. */
  unload(session: SessionId): Promise<void> {
    this.#sessions.delete(session);
    return Promise.resolve();
  }

  usage(): ExecutorUsage {
    return {};
  }

  onLost(listener: (reason: IntarsiaError) => void): void {
    this.#loss.listen(listener);
  }

  async close(options: { readonly graceMs: number }): Promise<void> {
    if (this.#loss.reason !== undefined || this.#closing) return;
    this.#closing = true;
    clearTimeout(this.#probe);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, options.graceMs);
    });
    await Promise.race([this.#flights.idle(), late]);
    clearTimeout(timer);
    if (this.#flights.size > 0) this.#lose('it was closed with requests in flight');
    this.#calls.close();
  }

  /** Finds the model on the server, has it loaded if it is not ready, and reads its inputs and outputs. */
  async #adopt(model: LoadRequest['model']): Promise<Pick<Session, 'inputs' | 'outputs'>> {
    const { loadMsMax, startMsMax } = this.#settings;
    const ready = { request: ModelReadyRequest, response: ModelReadyResponse };
    const isReady = async (): Promise<boolean> =>
      (await this.#calls.ask('ModelReady', ready, { name: model.name, version: model.version }, startMsMax)).ready;
    if (!(await isReady().catch(falseWhenUnknown))) {
      const load = { request: RepositoryModelLoadRequest, response: RepositoryModelLoadResponse };
      const request = { repositoryName: '', modelName: model.name, parameters: {} };
      await this.#calls.ask('RepositoryModelLoad', load, request, loadMsMax).catch((error: unknown) => {
        throw intarsiaError(
          'MODEL_NOT_READY',
          `model ${model.name} version ${model.version} is not ready on ${this.#settings.endpoint} and cannot be loaded there: ${messageOf(error)}`,
        );
      });
      if (!(await isReady())) {
        throw intarsiaError(
          'MODEL_NOT_READY',
          `model ${model.name} has no version ${model.version} that is ready there`,
        );
      }
    }
    const metadata = { request: ModelMetadataRequest, response: ModelMetadataResponse };
    const found = await this.#calls.ask(
      'ModelMetadata',
      metadata,
      { name: model.name, version: model.version },
      startMsMax,
    );
    return { inputs: found.inputs.map(specOf), outputs: found.outputs.map(specOf) };
  }

  /** Counts the call as in flight until it ends, or until the server is lost. */
  async #settle<Value>(start: () => Promise<Value>): Promise<Value> {
    const value = await this.#flights.add(Infinity, (number) => {
      start().then(
        (answer) => this.#flights.resolve(number, answer),
        (error: unknown) => this.#flights.reject(number, asIntarsiaError(error)),
      );
    });
    return value as Value;
  }

  #scheduleProbe(): void {
    this.#probe = setTimeout(() => void this.#probeOnce(), this.#settings.probeMs);
    this.#probe.unref();
  }

  async #probeOnce(): Promise<void> {
    try {
      const live = { request: ServerLiveRequest, response: ServerLiveResponse };
      const answer = await this.#calls.ask('ServerLive', live, {}, Math.max(this.#settings.probeMs, 1_000));
      if (!answer.live) throw new Error('it says that it is not live');
      this.#probesFailed = 0;
    } catch (error) {
      this.#probesFailed += 1;
      if (this.#probesFailed >= this.#settings.probesMax) {
        this.#lose(`it failed ${this.#probesFailed} probes, the last with: ${messageOf(error)}`);
        this.#calls.close();
        return;
      }
    }
    if (!this.#closing) this.#scheduleProbe();
  }

  #lose(how: string): void {
    const reason = intarsiaError('EXECUTOR_LOST', `inference server ${this.#settings.endpoint} is gone: ${how}`, {
      endpoint: this.#settings.endpoint,
    });
    this.#flights.rejectAll(reason);
    this.#loss.happen(reason);
  }

  #refuseWhenGone(): void {
    if (this.#loss.reason !== undefined) throw this.#loss.reason;
    if (this.#closing) throw intarsiaError('DEVICE_UNAVAILABLE', 'the executor is closing');
  }
}

/** Servers differ in whether an unknown model is an error or merely not ready. */
function falseWhenUnknown(error: unknown): false {
  const { code } = asIntarsiaError(error);
  if (code === 'MODEL_NOT_FOUND' || code === 'INVALID_ARGUMENT' || code === 'MODEL_NOT_READY') return false;
  throw error;
}

function specOf(metadata: {
  readonly name: string;
  readonly datatype: string;
  readonly shape: readonly bigint[];
}): TensorSpec {
  if (!isDatatype(metadata.datatype)) {
    throw intarsiaError('MODEL_INVALID', `tensor ${metadata.name} of the remote model has type ${metadata.datatype}`);
  }
  return { name: metadata.name, datatype: metadata.datatype, shape: metadata.shape.map(Number) };
}

/** What would be a puzzling answer from the server, or none, is refused before it is sent. */
function check(session: Session, request: RunRequest): void {
  for (const input of request.inputs) {
    const spec = session.inputs.find((candidate) => candidate.name === input.name);
    if (spec === undefined) throw intarsiaError('INVALID_ARGUMENT', `the model has no input ${input.name}`);
    if (spec.datatype !== input.datatype) {
      throw intarsiaError(
        'INVALID_ARGUMENT',
        `input ${input.name} has type ${input.datatype}; the model takes ${spec.datatype}`,
      );
    }
  }
  for (const name of request.outputs) {
    if (!session.outputs.some((spec) => spec.name === name)) {
      throw intarsiaError('INVALID_ARGUMENT', `the model has no output ${name}`);
    }
  }
}

/** The outputs in the order that was asked for, checked against their own shapes: the server is trusted with nothing else. */
function outputsOf(
  received: readonly {
    readonly name: string;
    readonly datatype: string;
    readonly shape: readonly number[];
    readonly data: Uint8Array;
  }[],
  session: Session,
  request: RunRequest,
): readonly Tensor[] {
  const names = request.outputs.length === 0 ? session.outputs.map((spec) => spec.name) : request.outputs;
  return names.map((name) => {
    const output = received.find((candidate) => candidate.name === name);
    if (output === undefined || !isDatatype(output.datatype)) {
      throw intarsiaError('EXECUTION_FAILED', `the server's answer lacks output ${name}`);
    }
    const { datatype, shape, data } = output;
    const wanted = tensorBytes(datatype, shape);
    const fits = wanted === undefined ? countBytesElements(data) === elementCount(shape) : wanted === data.byteLength;
    if (!fits) {
      throw intarsiaError(
        'EXECUTION_FAILED',
        `the server's output ${name} has ${data.byteLength} bytes, which do not fit ${datatype} ${formatShape(shape)}`,
      );
    }
    return { name, datatype, shape, data };
  });
}

/** The bytes of an input in one piece. */
function joined(input: RunInput): Uint8Array {
  const [first] = input.chunks;
  return input.chunks.length === 1 && first !== undefined ? first : joinRanges(input.chunks);
}
