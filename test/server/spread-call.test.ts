/** Large batches over devices of unlike speed on three hosts, on virtual time. Each item is a number; devices double it. */
import { describe, expect, it } from 'vitest';
import { intarsiaError, type IntarsiaError } from '#core/errors.js';
import { GridTable } from '#core/grid/grid-table.js';
import type { HostActual, ViewHost } from '#core/grid/records.js';
import { publishedFacts, type ServedFacts } from '#core/grid/served-facts.js';
import { anonymousTenant, deviceId, hostId, modelName, modelVersion, type HostId } from '#core/ids.js';
import type { InferenceRequest } from '#core/inference.js';
import { noParameters, type InferRequestMessage, type InferResponseMessage } from '#core/inference-message.js';
import { makeReceipt } from '#core/receipt.js';
import type { DeviceMessage } from '#actors/device/protocol.js';
import { gridPicker } from '#policies/placement/placement-grid.js';
import type { Delivery } from '#runtime/actor.js';
import { createGateway, type Gateway } from '#server/gateway.js';
import { PublishedRouter } from '#server/router.js';
import { seededRandom } from '#sim/random.js';
import { VirtualClock } from '#sim/virtual-clock.js';
import { digestOf, modelConfig } from '../actors/device-world.js';

const device = deviceId('cpu:0');

class UnlikeDevice {
  readonly host: HostId;
  readonly seen: InferenceRequest[] = [];
  readonly cancelled: number[] = [];
  standsStill = false;
  error: IntarsiaError | undefined;
  readonly msPerItem: number;
  readonly #clock: VirtualClock;

  constructor(host: string, msPerItem: number, clock: VirtualClock) {
    this.host = hostId(host);
    this.msPerItem = msPerItem;
    this.#clock = clock;
  }

  get items(): number {
    return this.seen.reduce((sum, { items }) => sum + items, 0);
  }

  tell(message: DeviceMessage): Delivery {
    if (message.type === 'cancel') this.cancelled.push(message.request);
    if (message.type !== 'infer') return 'accepted';
    const { request, replyTo } = message;
    this.seen.push(request);
    const { error } = this;
    const runMs = this.msPerItem * request.items;
    if (this.standsStill) return 'accepted';
    this.#clock.schedule(runMs, () => {
      if (error !== undefined) {
        replyTo.tell({ ok: false, error });
        return;
      }
      const receipt = makeReceipt({
        device: { id: device, emulated: false, busyWatts: { watts: 1, source: 'configured' } },
        billing: request.billing,
        items: request.items,
        batchItems: request.items,
        queueUs: 0,
        roundTripUs: runMs * 1000,
        computeInputUs: 0,
        computeInferUs: runMs * 1000,
        computeOutputUs: 0,
      });
      const outputs = request.inputs.map((tensor) => {
        const { data } = tensor;
        const values = new Float32Array(data.slice().buffer).map((value) => value * 2);
        return { ...tensor, data: new Uint8Array(values.buffer) };
      });
      replyTo.tell({ ok: true, outputs, receipt });
    });
    return 'accepted';
  }
}

interface Answer {
  readonly answer?: InferResponseMessage;
  readonly error?: IntarsiaError;
  readonly atMs: number;
}

class Grid {
  readonly clock = new VirtualClock();
  readonly devices: readonly UnlikeDevice[];
  readonly gateway: Gateway;
  readonly answers: Answer[] = [];

  /** @param msPerItem By host. */
  constructor(msPerItem: Readonly<Record<string, number>>, parameters: Readonly<Record<string, string>> = {}) {
    const config = modelConfig('m', {
      maxBatchSize: 8,
      parameters: new Map(Object.entries({ intarsia_strategy: 'data', ...parameters })),
    });
    const model: ServedFacts = {
      name: modelName('m'),
      version: modelVersion('1'),
      config,
      inputs: [{ name: 'x', datatype: 'FP32', shape: [-1, 1] }],
      outputs: [{ name: 'x', datatype: 'FP32', shape: [-1, 1] }],
      optionalInputs: new Set(),
      digest: digestOf('m'),
      labels: new Map(),
    };
    const { fingerprint } = publishedFacts({ ...model, devices: [] });
    const names = Object.keys(msPerItem);
    this.devices = names.map((name) => new UnlikeDevice(name, msPerItem[name] ?? 1, this.clock));
    const table = new GridTable({ host: hostId('gateway'), picker: gridPicker(seededRandom(5)) });
    table.setFacts(fingerprint, model);
    const hosts = new Map<HostId, ViewHost>();
    for (const name of names) {
      const host = hostId(name);
      const record = { host, devices: [] } as unknown as ViewHost['record'];
      hosts.set(host, { record, generation: 1, state: 'up', cordoned: false });
      const replica = { model: model.name, version: model.version, device, state: 'ready', facts: fingerprint };
      const actual = { format: 1, host, assignmentRevision: 0, replicas: [replica], degraded: {} };
      table.setActual(host, actual as unknown as HostActual);
    }
    table.setView({ revision: 1, hosts });
    const router = new PublishedRouter();
    router.setRemote((host) => this.devices.find((each) => each.host === host));
    router.publish(table.table());
    this.gateway = createGateway({ router, clock: this.clock, bytesInFlightMax: 1e6, receipts: true });
  }

  infer(items: number, deadlineMs = 60_000): { cancel(): void } {
    const data = new Uint8Array(Float32Array.from({ length: items }, (_, index) => index).buffer);
    const message: InferRequestMessage = {
      modelName: 'm',
      modelVersion: '',
      id: 'large',
      parameters: noParameters,
      inputs: [{ name: 'x', datatype: 'FP32', shape: [items, 1], parameters: noParameters, data }],
      outputs: [],
      rawContents: true,
    };
    return this.gateway.infer(
      message,
      {
        caller: { tenant: anonymousTenant, namesTenant: true, mayUse: () => true },
        deadlineMs: this.clock.nowMs() + deadlineMs,
        messageBytes: 100,
        sloMs: 0,
        traceparent: undefined,
        reservedParameters: new Set(),
      },
      {
        succeed: (answer) => this.answers.push({ answer, atMs: this.clock.nowMs() }),
        fail: (error) => this.answers.push({ error, atMs: this.clock.nowMs() }),
      },
    );
  }

  run(ms: number): void {
    this.clock.runUntil(this.clock.nowMs() + ms);
  }

  /** Exactly one answer, with every item doubled and in its place. */
  expectDoubled(items: number): Answer {
    expect(this.answers).toHaveLength(1);
    const [answer] = this.answers as [Answer];
    expect(answer.error).toBeUndefined();
    const [output] = answer.answer!.outputs;
    expect(output!.shape).toEqual([items, 1]);
    const values = [...new Float32Array(output!.data.slice().buffer)];
    expect(values).toEqual(Array.from({ length: items }, (_, index) => 2 * index));
    expect(this.gateway.requestsInFlight).toBe(0);
    expect(this.gateway.bytesInFlight).toBe(0);
    return answer;
  }

  shares(): { host: string; items: number; chunks: number; energy_joules: number }[] {
    const text = this.answers[0]?.answer?.parameters.get('intarsia_shares')?.value;
    return JSON.parse(String(text)) as ReturnType<Grid['shares']>;
  }
}

describe('one large batch over several devices', () => {
  it('is done by all in proportion to their speed, sooner than by the fastest, and answered in order', () => {
    const grid = new Grid({ a: 1, b: 2, c: 4 });
    grid.infer(400);
    grid.run(2000);
    const { atMs } = grid.expectDoubled(400);
    // 400 items at 1 + 1/2 + 1/4 items a millisecond.
    const best = 400 / 1.75;
    expect(atMs).toBeGreaterThanOrEqual(best);
    expect(atMs).toBeLessThanOrEqual(best * 1.06);
    const [a, b, c] = grid.devices.map(({ items }) => items) as [number, number, number];
    expect(a + b + c).toBe(400);
    expect(a / b).toBeGreaterThan(1.7);
    expect(b / c).toBeGreaterThan(1.6);
    for (const { seen } of grid.devices) for (const { items } of seen) expect(items).toBeLessThanOrEqual(8);
  });

  it('has every device in the receipt, and the sum of what they did', () => {
    const grid = new Grid({ a: 1, b: 2 });
    grid.infer(60);
    grid.run(1000);
    const { answer } = grid.expectDoubled(60);
    const shares = grid.shares();
    expect(shares.map(({ host }) => host)).toEqual(['a', 'b']);
    expect(shares.map(({ items }) => items)).toEqual(grid.devices.map(({ items }) => items));
    expect(shares.map(({ chunks }) => chunks)).toEqual(grid.devices.map(({ seen }) => seen.length));
    expect(answer!.parameters.get('intarsia_billed_units')?.value).toBe(60n);
    const busyMs = grid.devices.reduce((sum, { items, msPerItem }) => sum + items * msPerItem, 0);
    expect(Number(answer!.parameters.get('intarsia_energy_joules')?.value)).toBeCloseTo(busyMs / 1000, 4);
  });

  it('loses nothing when a device fails a piece: others do it, and that device gets no more', () => {
    const grid = new Grid({ a: 1, b: 1 });
    grid.devices[0]!.error = intarsiaError('EXECUTOR_LOST', 'the executor is gone');
    grid.infer(100);
    grid.run(2000);
    grid.expectDoubled(100);
    expect(grid.devices[0]!.seen).toHaveLength(1);
    expect(grid.devices[1]!.items).toBe(100);
  });

  it('does not wait for a device that stands still: the rest is done by others, and its piece too', () => {
    const grid = new Grid({ a: 1, b: 1 });
    grid.devices[0]!.standsStill = true;
    grid.infer(100);
    grid.run(20_000);
    grid.expectDoubled(100);
    expect(grid.devices[0]!.cancelled).toHaveLength(1);
  });

  it('fails once, with the error, when it cannot be tried again or nobody is left', () => {
    const wrong = new Grid({ a: 1, b: 1 });
    wrong.devices[1]!.error = intarsiaError('EXECUTION_FAILED', 'the model cannot');
    wrong.infer(100);
    wrong.run(2000);
    expect(wrong.answers.map(({ error }) => error?.code)).toEqual(['EXECUTION_FAILED']);
    const lost = new Grid({ a: 1, b: 1 });
    for (const each of lost.devices) each.error = intarsiaError('EXECUTOR_LOST', 'the executor is gone');
    lost.infer(100);
    lost.run(2000);
    expect(lost.answers.map(({ error }) => error?.code)).toEqual(['EXECUTOR_LOST']);
    for (const { gateway } of [wrong, lost]) expect([gateway.requestsInFlight, gateway.bytesInFlight]).toEqual([0, 0]);
  });

  it('ends at its deadline and when the client cancels, and is taken back from every device', () => {
    const late = new Grid({ a: 10, b: 10 });
    late.infer(100, 50);
    late.run(5000);
    expect(late.answers.map(({ error, atMs }) => [error?.code, atMs])).toEqual([['DEADLINE_EXCEEDED', 50]]);
    const left = new Grid({ a: 10, b: 10 });
    const ticket = left.infer(100);
    left.run(5);
    ticket.cancel();
    expect(left.answers.map(({ error }) => error?.code)).toEqual(['CANCELLED']);
    for (const { cancelled } of left.devices) expect(cancelled).toHaveLength(1);
    const seen = left.devices.map((each) => each.seen.length);
    left.run(5000);
    expect(left.devices.map((each) => each.seen.length)).toEqual(seen);
    expect(left.answers).toHaveLength(1);
  });

  it('is refused beyond what the model allows, and small requests go to one device', () => {
    const grid = new Grid({ a: 1, b: 1 }, { intarsia_data_max_items: '64' });
    grid.infer(65);
    expect(grid.answers[0]?.error?.message).toContain("batch-size must be <= 64 for 'm'; it is 65");
    grid.answers.splice(0);
    grid.infer(7);
    grid.run(100);
    grid.expectDoubled(7);
    expect(grid.devices.flatMap(({ seen }) => seen)).toHaveLength(1);
  });

  it('with auto goes to the one device that is nearly all of the speed, once that is known', () => {
    const grid = new Grid({ a: 0.1, b: 50 }, { intarsia_strategy: 'auto' });
    // Tried by both, as nothing is known; afterwards by one.
    grid.infer(8);
    grid.run(5000);
    expect(grid.devices.every(({ seen }) => seen.length > 0)).toBe(true);
    const before = grid.devices[1]!.seen.length;
    grid.infer(8);
    grid.run(5000);
    expect(grid.devices[1]!.seen).toHaveLength(before);
    expect(grid.answers.map(({ error }) => error)).toEqual([undefined, undefined]);
  });
});
