/**
 * A device that pretends to be other silicon. The results are real where an inner executor computes them (zeros where there
 * is none); time, memory, power and price are those of a hardware profile. It says so in its description, and whatever
 * shows or bills the device must repeat it.
 *
 * Runs take turns, as on one accelerator: a run begins when the one before has ended, and ends after the profile's time
 * multiplied by the time scale. A run whose true computation takes longer than that ends late and is counted.
 */
import { asIntarsiaError, intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { SessionId } from '#core/ids.js';
import { InFlight } from '#core/in-flight.js';
import { Loss } from '#core/loss.js';
import { formatBytes } from '#core/units.js';
import type { Clock } from '#ports/clock.js';
import type {
  Executor,
  ExecutorDescription,
  ExecutorUsage,
  LoadedSession,
  LoadRequest,
  RunEstimate,
  RunRequest,
  RunResult,
} from '#ports/executor.js';
import { emulatedRunMs, type EmulationProfile } from './latency-model.js';
import { readFacts, zeroModel, zeroOutputs, type ZeroModel } from './zero-engine.js';

export interface EmulationOptions {
  /** Computes the true results; undefined: every output is zeros. Closed with the emulated executor. */
  readonly inner?: Executor;
  readonly profile: EmulationProfile;
  readonly clock: Clock;
  /** Emulated time × timeScale = real time. 0.01 to 1,000. */
  readonly timeScale: number;
}

export interface EmulatedExecutor extends Executor {
  readonly profile: EmulationProfile;
  /** Runs whose true computation took longer than the emulated time: their times say nothing about the profile. */
  readonly overruns: number;
}

interface Session {
  readonly request: LoadRequest;
  readonly estimate: RunEstimate;
  readonly loaded: LoadedSession;
  readonly zero: ZeroModel | undefined;
}

export function emulateExecutor(options: EmulationOptions): EmulatedExecutor {
  return new Emulation(options);
}

class Emulation implements EmulatedExecutor {
  readonly #options: EmulationOptions;
  readonly #sessions = new Map<SessionId, Session>();
  readonly #loss = new Loss();
  readonly #runs = new InFlight<RunResult>(Infinity);
  #memoryBytes = 0;
  #freeAtMs = 0;
  #closing = false;
  #overruns = 0;

  constructor(options: EmulationOptions) {
    this.#options = options;
    options.inner?.onLost((reason) => this.#lose(reason));
  }

  get profile(): EmulationProfile {
    return this.#options.profile;
  }

  get overruns(): number {
    return this.#overruns;
  }

  get description(): ExecutorDescription {
    const { inner, profile } = this.#options;
    const pid = inner?.description.pid;
    return {
      provider: inner?.description.provider ?? 'none',
      isolation: inner?.description.isolation ?? 'inline',
      emulated: true,
      engine: `emulated ${profile.key} over ${inner?.description.engine ?? 'nothing'}`,
      concurrency: 1,
      ...(pid === undefined ? {} : { pid }),
    };
  }

  async load(request: LoadRequest): Promise<LoadedSession> {
    this.#refuseWhenGone();
    const { inner, profile } = this.#options;
    if (this.#sessions.has(request.session)) {
      throw intarsiaError('ALREADY_EXISTS', `session ${request.session} is loaded already`);
    }
    const startedMs = this.#options.clock.nowMs();
    const facts =
      inner !== undefined && request.estimate !== undefined ? undefined : await readFacts(request.artifact.path);
    // Without better knowledge: every weight is used once per item, as in a dense network of 32-bit numbers.
    const estimate = request.estimate ?? {
      flopsPerItem: (facts?.weightBytes ?? 0) / 2,
      weightBytes: facts?.weightBytes ?? 0,
      activationBytesPerItem: 0,
      operators: [...(facts?.operators.values() ?? [])].reduce((sum, count) => sum + count, 0),
    };
    const missing = this.#memoryBytes + estimate.weightBytes - profile.memoryBytes;
    if (missing > 0) {
      throw intarsiaError(
        'OUT_OF_MEMORY',
        `emulated ${profile.key} has ${formatBytes(profile.memoryBytes)}, ${formatBytes(this.#memoryBytes)} of it in use; the model needs ${formatBytes(estimate.weightBytes)}: ${formatBytes(missing)} are missing`,
        { bytesMissing: missing, memoryBytes: profile.memoryBytes },
      );
    }
    const zero = inner === undefined && facts !== undefined ? zeroModel(facts) : undefined;
    this.#memoryBytes += estimate.weightBytes;
    let real: LoadedSession | undefined;
    try {
      real = await inner?.load(request);
    } catch (error) {
      this.#memoryBytes -= estimate.weightBytes;
      throw error;
    }
    const loaded: LoadedSession = {
      inputs: real?.inputs ?? zero?.inputs ?? [],
      outputs: real?.outputs ?? zero?.outputs ?? [],
      loadMs: Math.max(real?.loadMs ?? 0, this.#options.clock.nowMs() - startedMs),
      memoryBytes: estimate.weightBytes,
      optimization: real?.optimization ?? request.options.optimization,
      notes: real?.notes ?? [],
    };
    this.#sessions.set(request.session, { request, estimate, loaded, zero });
    return loaded;
  }

  async run(request: RunRequest): Promise<RunResult> {
    this.#refuseWhenGone();
    const session = this.#sessions.get(request.session);
    if (session === undefined) throw intarsiaError('NOT_FOUND', `session ${request.session} is not loaded`);
    return this.#runs.add(Infinity, (number) => {
      this.#run(session, request).then(
        (result) => this.#runs.resolve(number, result),
        (error: unknown) => this.#runs.reject(number, asIntarsiaError(error)),
      );
    });
  }

  async unload(id: SessionId): Promise<void> {
    const session = this.#sessions.get(id);
    if (session === undefined) return;
    this.#sessions.delete(id);
    this.#memoryBytes -= session.estimate.weightBytes;
    await this.#options.inner?.unload(id);
  }

  /** Memory of the emulated silicon; the inner executor's own is the host's business. */
  usage(): ExecutorUsage {
    return { memoryBytes: this.#memoryBytes };
  }

  onLost(listener: (reason: IntarsiaError) => void): void {
    this.#loss.listen(listener);
  }

  async close(options: { readonly graceMs: number }): Promise<void> {
    this.#closing = true;
    const { clock, inner } = this.#options;
    const startedMs = clock.nowMs();
    await new Promise<void>((resolve) => {
      const timer = clock.schedule(options.graceMs, resolve);
      void this.#runs.idle().then(() => {
        timer.cancel();
        resolve();
      });
    });
    if (this.#runs.size > 0) {
      this.#lose(intarsiaError('EXECUTOR_LOST', `emulated ${this.profile.key} was closed with runs in flight`));
    }
    await inner?.close({ graceMs: Math.max(0, options.graceMs - (clock.nowMs() - startedMs)) });
  }

  async #run(session: Session, request: RunRequest): Promise<RunResult> {
    const { clock, profile, timeScale, inner } = this.#options;
    const items = itemsOf(session.loaded, request);
    const nowMs = clock.nowMs();
    const zeros = session.zero === undefined ? [] : zeroOutputs(session.zero, request, items);
    const computing = inner?.run(request);
    const spanMs = emulatedRunMs(profile, session.estimate, items) * timeScale;
    const startMs = Math.max(nowMs, this.#freeAtMs);
    const endMs = startMs + spanMs;
    this.#freeAtMs = endMs;
    const real = await computing;
    const leftMs = endMs - clock.nowMs();
    if (leftMs > 0) await new Promise<void>((resolve) => clock.schedule(leftMs, resolve));
    else if (real !== undefined) this.#overruns += 1;
    return {
      outputs: real?.outputs ?? zeros,
      computeInputUs: real?.computeInputUs ?? 0,
      computeInferUs: spanMs * 1000,
      computeOutputUs: real?.computeOutputUs ?? 0,
    };
  }

  #lose(reason: IntarsiaError): void {
    this.#runs.rejectAll(reason);
    this.#loss.happen(reason);
  }

  #refuseWhenGone(): void {
    if (this.#loss.reason !== undefined) throw this.#loss.reason;
    if (this.#closing) throw intarsiaError('DEVICE_UNAVAILABLE', 'the executor is closing');
  }
}

/** Items of a run: the first size of the first input that may vary there; 1 where the model does not batch. */
function itemsOf(loaded: LoadedSession, request: RunRequest): number {
  for (const spec of loaded.inputs) {
    if (spec.shape[0] !== -1) continue;
    const size = request.inputs.find((input) => input.name === spec.name)?.shape[0];
    if (size !== undefined) return Math.max(1, size);
  }
  return 1;
}
