/** A gateway of a grid on virtual time: its hosts' devices are objects that answer after a while, or stand still. */
import { describe, expect, it } from 'vitest';
import { intarsiaError, type IntarsiaError } from '#core/errors.js';
import { GridTable } from '#core/grid/grid-table.js';
import type { HostActual, ViewHost } from '#core/grid/records.js';
import { publishedFacts, type ServedFacts } from '#core/grid/served-facts.js';
import { anonymousTenant, deviceId, hostId, modelName, modelVersion, type DeviceId, type HostId } from '#core/ids.js';
import type { InferenceOutcome, InferenceRequest } from '#core/inference.js';
import { noParameters, type InferParameter, type InferRequestMessage } from '#core/inference-message.js';
import type { ModelConfig } from '#core/model-config.js';
import { makeReceipt } from '#core/receipt.js';
import type { DeviceMessage } from '#actors/device/protocol.js';
import { gridPicker } from '#policies/placement/placement-grid.js';
import type { Delivery, ReplyTo } from '#runtime/actor.js';
import { createGateway, type Gateway, type GatewayOptions } from '#server/gateway.js';
import { PublishedRouter } from '#server/router.js';
import { seededRandom } from '#sim/random.js';
import { VirtualClock } from '#sim/virtual-clock.js';

const model: ServedFacts = {
  name: modelName('m'),
  version: modelVersion('1'),
  config: { name: 'm', maxBatchSize: 8, parameters: new Map() } as unknown as ModelConfig,
  inputs: [{ name: 'x', datatype: 'FP32', shape: [-1, 1] }],
  outputs: [{ name: 'x', datatype: 'FP32', shape: [-1, 1] }],
  optionalInputs: new Set(),
  digest: 'a'.repeat(64) as ServedFacts['digest'],
  labels: new Map(),
};
const { fingerprint } = publishedFacts({ ...model, devices: [] });
const device = deviceId('cpu:0');

/** A device on a host over a link, as the gateway sees it. */
class FarDevice {
  readonly host: HostId;
  readonly device: DeviceId;
  readonly seen: InferenceRequest[] = [];
  readonly cancelled: number[] = [];
  serviceMs = 10;
  linkMs = 1;
  standsStill = false;
  /** Each so many requests one takes 400 ms longer than its receipt says; 0: none. */
  slowEvery = 0;
  /** What the next requests fail with. */
  error: IntarsiaError | undefined;
  delivery: Delivery = 'accepted';
  readonly #clock: VirtualClock;
  #kept: (() => void)[] = [];

  constructor(host: string, clock: VirtualClock) {
    this.host = hostId(host);
    this.device = device;
    this.#clock = clock;
  }

  tell(message: DeviceMessage): Delivery {
    if (this.delivery !== 'accepted') return this.delivery;
    if (message.type === 'cancel') this.cancelled.push(message.request);
    if (message.type !== 'infer') return 'accepted';
    const { request, replyTo } = message;
    this.seen.push(request);
    const { error } = this;
    const extraMs = this.slowEvery > 0 && this.seen.length % this.slowEvery === 0 ? 400 : 0;
    this.#clock.schedule(this.serviceMs + this.linkMs + extraMs, () => {
      const answer = (): void => void this.#answer(request, replyTo, error);
      if (this.standsStill) this.#kept.push(answer);
      else answer();
    });
    return 'accepted';
  }

  goOn(): void {
    this.standsStill = false;
    for (const answer of this.#kept.splice(0)) answer();
  }

  #answer(request: InferenceRequest, replyTo: ReplyTo<InferenceOutcome>, error: IntarsiaError | undefined): Delivery {
    if (error !== undefined) return replyTo.tell({ ok: false, error });
    const receipt = makeReceipt({
      device: { id: this.device, emulated: false },
      billing: request.billing,
      items: request.items,
      batchItems: request.items,
      queueUs: 0,
      roundTripUs: this.serviceMs * 1000,
      computeInputUs: 0,
      computeInferUs: this.serviceMs * 1000,
      computeOutputUs: 0,
    });
    return replyTo.tell({ ok: true, outputs: request.inputs, receipt });
  }
}

interface Answer {
  readonly host?: string;
  readonly error?: IntarsiaError;
  readonly atMs: number;
}

class Grid {
  readonly clock = new VirtualClock();
  readonly router = new PublishedRouter();
  readonly devices: readonly FarDevice[];
  readonly gateway: Gateway;
  readonly answers: Answer[] = [];
  readonly table = new GridTable({ host: hostId('gateway'), picker: gridPicker(seededRandom(5)) });

  constructor(hosts: readonly string[], options: Partial<GatewayOptions> = {}) {
    this.devices = hosts.map((host) => new FarDevice(host, this.clock));
    this.table.setFacts(fingerprint, model);
    this.states(Object.fromEntries(hosts.map((host) => [host, 'up'])));
    this.router.setRemote((host) => this.devices.find((each) => each.host === host));
    this.gateway = createGateway({
      router: this.router,
      clock: this.clock,
      bytesInFlightMax: 1e9,
      receipts: true,
      ...options,
    });
  }

  #revision = 0;

  states(states: Readonly<Record<string, string>>): void {
    this.#revision += 1;
    const hosts = new Map<HostId, ViewHost>();
    for (const [name, state] of Object.entries(states)) {
      const host = hostId(name);
      const record = { host, devices: [] } as unknown as ViewHost['record'];
      hosts.set(host, { record, generation: 1, state: state as ViewHost['state'], cordoned: false });
      const replica = { model: model.name, version: model.version, device, state: 'ready', facts: fingerprint };
      const actual = { format: 1, host, assignmentRevision: 0, replicas: [replica], degraded: {} };
      this.table.setActual(host, actual as unknown as HostActual);
    }
    this.table.setView({ revision: this.#revision, hosts });
    this.router.publish(this.table.table());
  }

  infer(deadlineMs = 2000, parameters: Readonly<Record<string, InferParameter>> = {}): { cancel(): void } {
    const message: InferRequestMessage = {
      modelName: 'm',
      modelVersion: '',
      id: '',
      parameters: Object.keys(parameters).length === 0 ? noParameters : new Map(Object.entries(parameters)),
      inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 1], parameters: noParameters, data: new Uint8Array(4) }],
      outputs: [],
      rawContents: true,
    };
    const at = (): number => this.clock.nowMs();
    return this.gateway.infer(
      message,
      {
        caller: { tenant: anonymousTenant, namesTenant: true, mayUse: () => true },
        deadlineMs: at() + deadlineMs,
        messageBytes: 100,
        sloMs: 0,
        traceparent: undefined,
        reservedParameters: new Set(),
      },
      {
        succeed: (answer) =>
          this.answers.push({ host: String(answer.parameters.get('intarsia_host')?.value), atMs: at() }),
        fail: (error) => this.answers.push({ error, atMs: at() }),
      },
    );
  }

  /** So many requests, one after the other, each answered before the next. */
  warm(count: number): void {
    for (let index = 0; index < count; index += 1) {
      this.infer();
      this.clock.runUntil(this.clock.nowMs() + 50);
    }
    this.answers.splice(0);
  }

  run(ms: number): void {
    this.clock.runUntil(this.clock.nowMs() + ms);
  }
}

/** Parameters of a step of sequence 7. */
const step = (start: boolean): Record<string, InferParameter> => ({
  sequence_id: { kind: 'int64', value: 7n },
  sequence_start: { kind: 'bool', value: start },
});

const failures = ({ answers }: Grid): string[] =>
  answers.flatMap(({ error }) => (error === undefined ? [] : [error.code]));

describe('attempts in a grid', () => {
  it('say in the receipt which host computed', () => {
    const grid = new Grid(['a']);
    grid.infer();
    grid.run(100);
    expect(grid.answers).toEqual([{ host: 'a', atMs: 11 }]);
  });

  it('are made elsewhere when a host stands still: no request fails, none waits for its deadline', () => {
    const grid = new Grid(['a', 'b']);
    grid.warm(40);
    const [stopped] = grid.devices as [FarDevice, FarDevice];
    stopped.standsStill = true;
    for (let index = 0; index < 200; index += 1) {
      const askedMs = grid.clock.nowMs();
      const before = grid.answers.length;
      grid.infer();
      grid.run(10);
      if (index === 0) expect(askedMs).toBeGreaterThan(0);
      expect(grid.answers.length).toBeGreaterThanOrEqual(before - 1);
    }
    grid.run(2000);
    expect(failures(grid)).toEqual([]);
    expect(grid.answers).toHaveLength(200);
    expect(grid.answers.every(({ host }) => host === 'b')).toBe(true);
    expect(grid.gateway.attemptCounts.retries.overdue).toBeGreaterThan(0);
    expect(grid.gateway.attemptCounts.bans).toBeGreaterThan(0);
    expect(grid.gateway.requestsInFlight).toBe(0);
    expect(grid.gateway.bytesInFlight).toBe(0);
  });

  it('use a host again that stood still and goes on, and drop its late answers', () => {
    const grid = new Grid(['a', 'b']);
    grid.warm(40);
    const [stopped] = grid.devices as [FarDevice, FarDevice];
    stopped.standsStill = true;
    for (let index = 0; index < 20; index += 1) {
      grid.infer();
      grid.run(20);
    }
    grid.run(1000);
    const { length } = grid.answers;
    expect(length).toBe(20);
    stopped.goOn();
    expect(grid.answers).toHaveLength(length);
    expect(grid.gateway.attemptCounts.late).toBeGreaterThan(0);
    for (let index = 0; index < 20; index += 1) {
      grid.infer();
      grid.run(1);
    }
    grid.run(1000);
    expect(grid.answers.slice(length).some(({ host }) => host === 'a')).toBe(true);
    expect(failures(grid)).toEqual([]);
    const load = grid.router.current.candidates
      .get(model.name)
      ?.get(model.version)
      ?.map((each) => each.load);
    expect(load?.map(({ itemsInFlight }) => itemsInFlight)).toEqual([0, 0]);
  });

  it('are made elsewhere at once when a host is lost, which is then left alone', () => {
    const grid = new Grid(['a', 'b', 'c']);
    const [lost] = grid.devices as [FarDevice, FarDevice, FarDevice];
    lost.error = intarsiaError('UNAVAILABLE', 'the link to host a was lost');
    lost.serviceMs = 0;
    for (let index = 0; index < 30; index += 1) grid.infer();
    grid.run(500);
    expect(failures(grid)).toEqual([]);
    const seen = lost.seen.length;
    for (let index = 0; index < 30; index += 1) grid.infer();
    grid.run(100);
    expect(failures(grid)).toEqual([]);
    // At most one goes ahead to see whether it is back.
    expect(lost.seen.length - seen).toBeLessThanOrEqual(1);
  });

  it('of a request to the only replica are not limited: it has its whole deadline', () => {
    const grid = new Grid(['a']);
    grid.warm(5);
    const [only] = grid.devices as [FarDevice];
    only.serviceMs = 1900;
    const startMs = grid.clock.nowMs();
    grid.infer();
    grid.run(3000);
    expect(grid.answers).toEqual([{ host: 'a', atMs: startMs + 1901 }]);
    expect(only.seen).toHaveLength(6);
  });

  it('go to replicas in reserve, and to banned ones, rather than nowhere', () => {
    const grid = new Grid(['a', 'b']);
    grid.states({ a: 'up', b: 'suspected' });
    const [first, second] = grid.devices as [FarDevice, FarDevice];
    first.delivery = 'stopped';
    grid.infer();
    grid.run(100);
    expect(grid.answers.map(({ host }) => host)).toEqual(['b']);
    first.delivery = 'accepted';
    second.delivery = 'stopped';
    grid.infer();
    grid.run(100);
    expect(grid.answers.map(({ host }) => host)).toEqual(['b', 'a']);
  });

  it('of a sequence stay where its state is, and are not repeated', () => {
    const grid = new Grid(['a', 'b']);
    grid.warm(20);
    grid.infer(2000, step(true));
    grid.run(100);
    const holder = grid.devices.find(({ host }) => host === grid.answers[0]?.host);
    holder!.standsStill = true;
    const sent = grid.devices.map(({ seen }) => seen.length);
    grid.infer(2000, step(false));
    grid.run(3000);
    expect(failures(grid)).toEqual(['DEADLINE_EXCEEDED']);
    const more = grid.devices.map(({ seen }, index) => seen.length - (sent[index] ?? 0));
    expect(more.reduce((sum, each) => sum + each, 0)).toBe(1);
  });

  it('of a sequence whose replica is gone fail, and never reach one that has an older state of it', () => {
    const grid = new Grid(['a', 'b']);
    grid.warm(20);
    grid.infer(2000, step(true));
    grid.run(100);
    const holder = grid.answers.at(-1)?.host ?? '';
    const other = grid.devices.find(({ host }) => host !== holder)!;
    const sent = other.seen.length;
    grid.states({ [other.host]: 'up' });
    grid.infer(2000, step(false));
    grid.run(100);
    expect(grid.answers.at(-1)?.error?.message).toContain('sequence 7 of model');
    expect(grid.answers.at(-1)?.error?.code).toBe('UNAVAILABLE');
    expect(other.seen).toHaveLength(sent);
    grid.infer(2000, step(true));
    grid.run(100);
    expect(grid.answers.at(-1)).toMatchObject({ host: other.host });
  });

  it('keep to the device that the client names, on whichever host, and say where the model is when it is not there', () => {
    const grid = new Grid(['a', 'b']);
    const named = (value: string): Record<string, InferParameter> => ({ intarsia_device: { kind: 'string', value } });
    for (let index = 0; index < 5; index += 1) grid.infer(2000, named('b/cpu:0'));
    grid.infer(2000, named('c/cpu:0'));
    grid.run(1000);
    expect(grid.answers.slice(1).map(({ host }) => host)).toEqual(['b', 'b', 'b', 'b', 'b']);
    expect(grid.answers[0]?.error?.code).toBe('INVALID_ARGUMENT');
    expect(grid.answers[0]?.error?.message).toContain('a/cpu:0, b/cpu:0');
  });

  it('stop when the budget of retries is spent, so that trouble does not multiply the load', () => {
    const grid = new Grid(['a', 'b', 'c'], { attempts: { retryBurst: 10, retryShare: 0.1 } });
    for (const each of grid.devices) each.error = intarsiaError('QUEUE_FULL', 'full');
    for (let index = 0; index < 500; index += 1) {
      grid.infer();
      grid.run(20);
    }
    const sent = grid.devices.reduce((sum, { seen }) => sum + seen.length, 0);
    expect(sent).toBeGreaterThan(500);
    expect(sent).toBeLessThanOrEqual(500 + 10 + 50 + 1);
    expect(grid.gateway.attemptCounts.refused).toBeGreaterThan(0);
    expect(new Set(failures(grid))).toEqual(new Set(['QUEUE_FULL']));
  });

  it('are never hedged unless asked for; then within the share, and the first answer counts', () => {
    const slowNowAndThen = (grid: Grid): number => {
      grid.warm(60);
      for (const each of grid.devices) each.slowEvery = 10;
      for (let index = 0; index < 400; index += 1) {
        grid.infer();
        grid.run(500);
      }
      expect(failures(grid)).toEqual([]);
      expect(grid.answers).toHaveLength(400);
      expect(grid.gateway.requestsInFlight).toBe(0);
      return grid.gateway.attemptCounts.hedges;
    };
    expect(slowNowAndThen(new Grid(['a', 'b']))).toBe(0);
    const hedging = new Grid(['a', 'b'], { attempts: { hedgeShare: 0.05 } });
    const hedges = slowNowAndThen(hedging);
    expect(hedges).toBeGreaterThan(0);
    expect(hedges).toBeLessThanOrEqual(10 + 0.05 * 460);
    const cancelled = hedging.devices.reduce((sum, each) => sum + each.cancelled.length, 0);
    expect(cancelled).toBeGreaterThan(0);
  });

  it('under way end with the client: every host that has the request is told', () => {
    const grid = new Grid(['a', 'b']);
    grid.warm(40);
    for (const each of grid.devices) each.standsStill = true;
    const ticket = grid.infer(20_000);
    grid.run(2000);
    ticket.cancel();
    expect(failures(grid)).toEqual(['CANCELLED']);
    expect(grid.devices.map(({ cancelled }) => cancelled.length)).toEqual([1, 1]);
    expect(grid.gateway.requestsInFlight).toBe(0);
    grid.run(20_000);
    expect(grid.answers).toHaveLength(1);
  });
});
