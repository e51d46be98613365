/**
 * Clients of a simulated grid, as `intarsia/client` is one: they know all gateways, leave one that failed alone for a
 * while, try another one after a retryable error, and ask a second one when the first takes long. What each gateway
 * answers is checked here: once, in the clients' words, with the right numbers.
 */
import { errorCatalogue, intarsiaError, type ErrorCode, type IntarsiaError } from '#core/errors.js';
import type { TenantId } from '#core/ids.js';
import { noParameters, type InferRequestMessage, type InferResponseMessage } from '#core/inference-message.js';
import type { InferCall, InferReply } from '#ports/inference-gateway.js';
import type { Random } from '#ports/random.js';
import type { Timer } from '#ports/clock.js';
import type { Trace } from '../trace.js';
import type { VirtualClock } from '../virtual-clock.js';
import type { PlantedBug } from './planted-bugs.js';
import { expected, floatsOf, width } from './simulated-models.js';
import type { SimulatedHost } from './simulated-host.js';
import type { Violations } from './violations.js';

export interface ClientsWorld {
  readonly clock: VirtualClock;
  readonly random: Random;
  readonly trace: Trace;
  readonly violations: Violations;
  readonly models: readonly string[];
  readonly names: readonly string[];
  readonly bug: PlantedBug | undefined;
  /** The process that runs on a host now; undefined while there is none. */
  hostOf(name: string): SimulatedHost | undefined;
}

export interface ClientCounts {
  sent: number;
  answered: number;
  /** By code. */
  readonly failed: Map<ErrorCode, number>;
  attempts: number;
}

/** What a client may be told when a grid is in trouble; anything else is a mistake of the grid. */
export const troubleCodes: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'DEADLINE_EXCEEDED',
  'UNAVAILABLE',
  'DEVICE_UNAVAILABLE',
  'EXECUTOR_LOST',
  'MODEL_NOT_READY',
  'QUEUE_FULL',
  'QUEUE_TIMEOUT',
  'RESOURCE_EXHAUSTED',
  'CANCELLED',
]);

const attemptsMax = 4;
const deadlineMsMin = 4_000;
const deadlineMsMax = 10_000;
/** A second gateway is asked when the first has taken so long, ms. */
const secondAfterMs = 800;
/** A gateway that failed is left alone for so long, ms. */
const ejectMs = 1_000;
/** A connection to a machine without power is given up after so long, ms. */
const silenceMs = 2_000;

export class SimulatedClients {
  readonly counts: ClientCounts = { sent: 0, answered: 0, failed: new Map(), attempts: 0 };
  readonly #world: ClientsWorld;
  readonly #ejectedUntilMs = new Map<string, number>();
  readonly #open = new Set<Call>();
  #answers = 0;
  /** Failures of any kind are violations from now on. */
  isCalm = false;

  constructor(world: ClientsWorld) {
    this.#world = world;
  }

  /** Requests without an outcome yet. */
  get open(): number {
    return this.#open.size;
  }

  send(): void {
    this.counts.sent += 1;
    const { random, models } = this.#world;
    const model = models[Math.floor(random.next() * models.length)] ?? '';
    const deadlineMs = deadlineMsMin + random.next() * (deadlineMsMax - deadlineMsMin);
    const call = new Call(this, {
      model,
      number: this.counts.sent,
      deadlineMs: this.nowMs + deadlineMs,
      isCalm: this.isCalm,
    });
    this.#open.add(call);
    call.begin();
  }

  /** Whoever should have been answered by now and was not. */
  checkUnanswered(): void {
    for (const call of this.#open) call.checkUnanswered();
  }

  // What calls use.

  get nowMs(): number {
    return this.#world.clock.nowMs();
  }

  get world(): ClientsWorld {
    return this.#world;
  }

  choose(tried: ReadonlySet<string>): string {
    const { names, random } = this.#world;
    const isGood = (name: string): boolean =>
      !tried.has(name) && (this.#ejectedUntilMs.get(name) ?? -Infinity) <= this.nowMs;
    const good = names.filter(isGood);
    const from = good.length > 0 ? good : names;
    return from[Math.floor(random.next() * from.length)] ?? '';
  }

  eject(name: string): void {
    this.#ejectedUntilMs.set(name, this.nowMs + ejectMs);
  }

  nextAnswer(): number {
    this.#answers += 1;
    return this.#answers;
  }

  end(call: Call, error: IntarsiaError | undefined): void {
    if (!this.#open.delete(call)) return;
    const { trace, violations } = this.#world;
    trace.number(call.number);
    trace.text(error?.code ?? 'answered');
    if (error === undefined) {
      this.counts.answered += 1;
      return;
    }
    this.counts.failed.set(error.code, (this.counts.failed.get(error.code) ?? 0) + 1);
    if (!Object.hasOwn(errorCatalogue, error.code) || !troubleCodes.has(error.code)) {
      violations.report('known-code', `request ${call.number} failed with ${error.code}: ${error.message}`);
    } else if (call.isCalm) {
      violations.report(
        'calm-requests',
        `request ${call.number} failed while all was calm: ${error.code}: ${error.message}`,
      );
    }
  }
}

interface CallParts {
  readonly model: string;
  readonly number: number;
  /** On the world's clock. */
  readonly deadlineMs: number;
  readonly isCalm: boolean;
}

interface SentAttempt {
  readonly host: SimulatedHost;
  /** The gateway has it. */
  isTaken: boolean;
  answers: number;
  isOver: boolean;
  cancel: () => void;
  /** Stops listening for the end of the gateway's process. */
  forget: () => void;
}

/** One request of a client, with its attempts. */
class Call {
  readonly number: number;
  readonly isCalm: boolean;
  readonly #clients: SimulatedClients;
  readonly #parts: CallParts;
  readonly #tried = new Set<string>();
  readonly #attempts: SentAttempt[] = [];
  #underWay = 0;
  #isOver = false;
  #deadline: Timer | undefined;
  #second: Timer | undefined;

  constructor(clients: SimulatedClients, parts: CallParts) {
    this.#clients = clients;
    this.#parts = parts;
    this.number = parts.number;
    this.isCalm = parts.isCalm;
  }

  begin(): void {
    const { clock } = this.#clients.world;
    this.#deadline = clock.scheduleAt(this.#parts.deadlineMs, () =>
      this.#end(intarsiaError('DEADLINE_EXCEEDED', 'no gateway answered in time')),
    );
    this.#attempt();
  }

  checkUnanswered(): void {
    const { violations, clock } = this.#clients.world;
    violations.report(
      'answered-once',
      `request ${this.number} was due at ${this.#parts.deadlineMs} ms and has no outcome at ${clock.nowMs()} ms`,
    );
  }

  #attempt(): void {
    const { clock, random } = this.#clients.world;
    if (this.#isOver) return;
    const name = this.#clients.choose(this.#tried);
    this.#tried.add(name);
    this.#clients.counts.attempts += 1;
    this.#underWay += 1;
    this.#second?.cancel();
    this.#second = this.#tried.size < attemptsMax ? clock.schedule(secondAfterMs, () => this.#attempt()) : undefined;
    clock.schedule(0.2 + random.next(), () => this.#arrive(name));
  }

  #arrive(name: string): void {
    const host = this.#clients.world.hostOf(name);
    if (host === undefined || !host.isOpen) {
      this.#failed(name, intarsiaError('UNAVAILABLE', `gateway ${name} cannot be reached`));
      return;
    }
    const attempt: SentAttempt = {
      host,
      isTaken: false,
      answers: 0,
      isOver: false,
      cancel: () => {},
      forget: () => {},
    };
    this.#attempts.push(attempt);
    attempt.forget = host.onEnd((how) => this.#lost(name, attempt, how));
    // A process that stands still takes it when it goes on.
    host.clock.defer(() => this.#infer(name, attempt));
  }

  #infer(name: string, attempt: SentAttempt): void {
    const { host } = attempt;
    if (!host.isAlive || attempt.isOver) return;
    const leftMs = this.#parts.deadlineMs - this.#clients.nowMs;
    if (leftMs <= 0) return;
    const { bug } = this.#clients.world;
    const reply: InferReply = {
      succeed: (answer) => this.#reply(name, attempt, () => this.#succeeded(attempt, answer)),
      fail: (error) => this.#reply(name, attempt, () => this.#failed(name, error)),
    };
    if (bug === 'refusing-gateway' && this.number % 3 === 0) {
      this.#end(intarsiaError('UNAVAILABLE', 'this gateway refuses every third request'));
      return;
    }
    const call: InferCall = {
      caller,
      deadlineMs: host.clock.nowMs() + leftMs,
      messageBytes: 64,
      sloMs: 0,
      traceparent: undefined,
      reservedParameters: noReserved,
    };
    attempt.isTaken = true;
    const ticket = host.gateway.infer(this.#message(), call, reply);
    attempt.cancel = () => host.clock.defer(() => ticket.cancel());
  }

  #message(): InferRequestMessage {
    const values = new Float32Array(width).fill(this.number);
    return {
      modelName: this.#parts.model,
      modelVersion: '',
      id: String(this.number),
      parameters: noParameters,
      inputs: [
        {
          name: 'x',
          datatype: 'FP32',
          shape: [1, width],
          parameters: noParameters,
          data: new Uint8Array(values.buffer),
        },
      ],
      outputs: [],
      rawContents: true,
    };
  }

  /** A gateway said something: counted at the gateway's own door, then carried to the client. */
  #reply(name: string, attempt: SentAttempt, take: () => void): void {
    const { world } = this.#clients;
    if (!attempt.host.isAlive) return;
    const turn = this.#clients.nextAnswer();
    if (world.bug === 'lost-answer' && turn % 50 === 0) return;
    const tell = (): void => {
      attempt.answers += 1;
      if (attempt.answers > 1) {
        world.violations.report(
          'answered-once',
          `gateway ${name} answered request ${this.number} ${attempt.answers} times`,
        );
      }
      const delayMs = 0.2 + world.random.next();
      world.clock.schedule(delayMs, () => {
        if (attempt.isOver) return;
        attempt.isOver = true;
        take();
      });
    };
    tell();
    if (world.bug === 'doubled-answer' && turn % 50 === 0) tell();
  }

  #succeeded(attempt: SentAttempt, answer: InferResponseMessage): void {
    this.#underWay -= 1;
    const { violations, bug } = this.#clients.world;
    const [y] = answer.outputs;
    const wanted = expected(this.number, Number(answer.modelVersion));
    const values = y === undefined ? [] : [...floatsOf(y.data)];
    if (answer.id !== String(this.number) || values.length !== width || values.some((value) => value !== wanted)) {
      violations.report(
        'right-answer',
        `request ${this.number} of ${attempt.host.name} got ${values.join(' ')} of version ${answer.modelVersion} for ${answer.id}; ${wanted} is right`,
      );
    }
    if (bug === 'unknown-error' && this.number % 50 === 0) {
      this.#end(intarsiaError('INTERNAL', 'a planted error'));
      return;
    }
    this.#end(undefined);
  }

  #failed(name: string, error: IntarsiaError): void {
    this.#underWay -= 1;
    if (this.#isOver) return;
    if (!error.retryable) {
      this.#end(error);
      return;
    }
    this.#clients.eject(name);
    if (this.#tried.size < attemptsMax) {
      const { clock, random } = this.#clients.world;
      clock.schedule(random.next() * 50, () => this.#attempt());
    } else if (this.#underWay === 0) this.#end(error);
  }

  /** The gateway's process ended, or its machine lost power. */
  #lost(name: string, attempt: SentAttempt, how: 'killed' | 'unplugged'): void {
    if (attempt.isOver) return;
    const { clock } = this.#clients.world;
    clock.schedule(how === 'killed' ? 0.5 : silenceMs, () => {
      if (attempt.isOver) return;
      attempt.isOver = true;
      this.#failed(name, intarsiaError('UNAVAILABLE', `the connection to gateway ${name} is lost`));
    });
  }

  #end(error: IntarsiaError | undefined): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#deadline?.cancel();
    this.#second?.cancel();
    for (const attempt of this.#attempts) {
      attempt.forget();
      if (!attempt.isOver) attempt.cancel();
    }
    this.#watchStragglers();
    this.#clients.end(this, error);
  }

  /** A gateway whose client has gone still has to end what it was asked for. */
  #watchStragglers(): void {
    const { clock, violations } = this.#clients.world;
    for (const attempt of this.#attempts) {
      if (!attempt.isTaken || attempt.answers > 0) continue;
      const check = (): void => {
        if (attempt.answers > 0 || !attempt.host.isAlive) return;
        // A process that stands still answers later.
        if (attempt.host.clock.isStopped || attempt.host.resumedMs > clock.nowMs() - stragglerMs) {
          clock.schedule(stragglerMs, check);
          return;
        }
        violations.report(
          'answered-once',
          `gateway ${attempt.host.name} never answered request ${this.number}, which it took`,
        );
      };
      clock.schedule(stragglerMs + Math.max(0, this.#parts.deadlineMs - clock.nowMs()), check);
    }
  }
}

/** After its deadline, or its client's leaving, a request must have ended within so long, ms. */
const stragglerMs = 2_000;
const noReserved: ReadonlySet<string> = new Set();
export const caller = { tenant: 'simulation' as TenantId, namesTenant: true, mayUse: () => true };
