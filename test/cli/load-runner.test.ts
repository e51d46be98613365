import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { VirtualClock } from '#sim/virtual-clock.js';
import type { Clock } from '#ports/clock.js';
import type { LoadDone, LoadTransport } from '#ports/load-transport.js';
import { parseTrace, poissonArrivals, traceArrivals } from '#cli/load/arrivals.js';
import { completeLoadPlan, type LoadPlanOptions } from '#cli/load/load-plan.js';
import type { LoadReport } from '#cli/load/load-report.js';
import { runLoad } from '#cli/load/load-runner.js';

/** A server on virtual time: answers after what `serviceMs` says, one request at a time when `serial`. */
class PretendTransport implements LoadTransport {
  readonly clock: VirtualClock;
  readonly serviceMs: (nowMs: number) => number;
  readonly serial: boolean;
  inFlight = 0;
  mostInFlight = 0;
  sent: number[] = [];
  bodies: number[] = [];
  code: (nowMs: number) => string = () => '';
  #freeAtMs = 0;

  constructor(clock: VirtualClock, serviceMs: (nowMs: number) => number, serial = false) {
    this.clock = clock;
    this.serviceMs = serviceMs;
    this.serial = serial;
  }

  open(): Promise<void> {
    return Promise.resolve();
  }
  send(body: number, wantsAnswer: boolean, done: LoadDone): void {
    const nowMs = this.clock.nowMs();
    this.sent.push(nowMs);
    this.bodies.push(body);
    this.inFlight += 1;
    this.mostInFlight = Math.max(this.mostInFlight, this.inFlight);
    const startMs = this.serial ? Math.max(nowMs, this.#freeAtMs) : nowMs;
    const endMs = startMs + this.serviceMs(startMs);
    this.#freeAtMs = endMs;
    if (endMs === Infinity) return;
    this.clock.schedule(endMs - nowMs, () => {
      this.inFlight -= 1;
      done(this.code(nowMs), wantsAnswer ? new Uint8Array([7]) : undefined);
    });
  }
  close(): void {}
}

async function drive(
  options: LoadPlanOptions,
  transportOf: (clock: VirtualClock) => PretendTransport,
): Promise<{ report: LoadReport; transport: PretendTransport }> {
  const clock = new VirtualClock();
  const transport = transportOf(clock);
  const running = runLoad({
    plan: completeLoadPlan(options),
    transport,
    clock,
    itemsPerRequest: 2,
    receiptOf: () => undefined,
  });
  clock.runUntilIdle();
  const report = await running;
  return { report, transport };
}

describe('the closed loop', () => {
  it('keeps exactly as many requests in flight, and counts the window only', async () => {
    const { report, transport } = await drive(
      { arrivals: { kind: 'closed', concurrency: 4 }, warmUpMs: 1000, windowMs: 10_000 },
      (clock) => new PretendTransport(clock, () => 10),
    );
    expect(transport.mostInFlight).toBe(4);
    // 4 lanes of 10 ms: 400 a second. The answer at the very edge of the window may fall on either side.
    expect(report.requestsPerSecond).toBeGreaterThanOrEqual(399);
    expect(report.requestsPerSecond).toBeLessThanOrEqual(401);
    expect(report.itemsPerSecond).toBeCloseTo(report.requestsPerSecond * 2);
    expect(report.latencyMs.p50).toBeCloseTo(10, 1);
    expect(report.latencyMs.max).toBeCloseTo(10, 1);
    expect(report).toMatchObject({ windowSeconds: 10, failed: 0, errors: {} });
    expect(report.sendDelayMs).toBeUndefined();
  });

  it('ends after the number of requests asked for', async () => {
    const { report, transport } = await drive(
      { arrivals: { kind: 'closed', concurrency: 3 }, warmUpMs: 0, windowMs: 60_000, requestsMax: 100 },
      (clock) => new PretendTransport(clock, () => 5),
    );
    expect(report.requests).toBe(100);
    expect(report.windowSeconds).toBeLessThan(1);
    // No timer is left that would keep a process up until the window were over.
    expect(transport.clock.nowMs()).toBeLessThan(1000);
  });

  it('counts failures by code and keeps them out of latency and throughput', async () => {
    const { report } = await drive(
      { arrivals: { kind: 'closed', concurrency: 1 }, warmUpMs: 0, windowMs: 1000 },
      (clock) => {
        const transport = new PretendTransport(clock, () => 10);
        transport.code = (nowMs) => (Math.round(nowMs / 10) % 4 === 0 ? 'QUEUE_FULL' : '');
        return transport;
      },
    );
    expect(report.errors).toEqual({ QUEUE_FULL: report.failed });
    expect(report.failed).toBeGreaterThanOrEqual(24);
    expect(report.latencyMs.count).toBe(report.succeeded);
  });

  it('does not spin on a server that is away', async () => {
    const { report, transport } = await drive(
      { arrivals: { kind: 'closed', concurrency: 2 }, warmUpMs: 0, windowMs: 1000 },
      (clock) => {
        const away = new PretendTransport(clock, () => 0);
        away.code = () => 'UNAVAILABLE';
        return away;
      },
    );
    expect(transport.sent.length).toBeLessThanOrEqual(44);
    expect(report.succeeded).toBe(0);
  });

  it('ends although the server never answers', async () => {
    const { report } = await drive(
      { arrivals: { kind: 'closed', concurrency: 2 }, warmUpMs: 0, windowMs: 1000, drainMsMax: 500 },
      (clock) => new PretendTransport(clock, () => Infinity),
    );
    expect(report.succeeded).toBe(0);
  });

  it('sends its bodies in turn', async () => {
    const { transport } = await drive(
      { arrivals: { kind: 'closed', concurrency: 1 }, warmUpMs: 0, windowMs: 100, bodies: 3 },
      (clock) => new PretendTransport(clock, () => 10),
    );
    expect(transport.bodies.slice(0, 5)).toEqual([0, 1, 2, 0, 1]);
  });
});

describe('the open loop', () => {
  it('does not forget what a stalled server kept from leaving: latency counts from the intended moment', async () => {
    // One request every 10 ms to a server that answers in 1 ms, but stands still from 5 s to 6 s.
    const arrivalsMs = Array.from({ length: 1000 }, (_, index) => index * 10);
    const stalled = (nowMs: number): number => (nowMs >= 5000 && nowMs < 6000 ? 6000 - nowMs + 1 : 1);
    const { report } = await drive(
      { arrivals: { kind: 'trace', name: 'steady', arrivalsMs }, warmUpMs: 0, windowMs: 10_000 },
      (clock) => new PretendTransport(clock, stalled, true),
    );
    expect(report.requests).toBe(1000);
    // 100 requests were meant to leave in the stall and waited 505 ms on average: a tenth of all.
    expect(report.latencyMs.p50).toBeCloseTo(1, 1);
    expect(report.latencyMs.p95).toBeGreaterThan(400);
    expect(report.latencyMs.max).toBeGreaterThan(1000);
    expect(report.sendDelayMs?.max).toBeLessThan(1);
  });

  it('counts from the intended moment also what left late because the generator itself stood still', async () => {
    const clock = new VirtualClock();
    // Nothing of this process runs from 5 s to 6 s: timers that are due in between fire at 6 s.
    const stalling: Clock = {
      nowMs: () => clock.nowMs(),
      wallMs: () => clock.wallMs(),
      defer: (task) => clock.defer(task),
      schedule: (delayMs, task) => stalling.scheduleAt(clock.nowMs() + delayMs, task),
      scheduleAt: (dueMs, task) => clock.scheduleAt(dueMs >= 5000 && dueMs < 6000 ? 6000 : dueMs, task),
    };
    const arrivalsMs = Array.from({ length: 1000 }, (_, index) => index * 10);
    const running = runLoad({
      plan: completeLoadPlan({
        arrivals: { kind: 'trace', name: 'steady', arrivalsMs },
        warmUpMs: 0,
        windowMs: 10_000,
      }),
      transport: new PretendTransport(clock, () => 1),
      clock: stalling,
      itemsPerRequest: 1,
      receiptOf: () => undefined,
    });
    clock.runUntilIdle();
    const report = await running;
    expect(report.requests).toBe(1000);
    expect(report.sendDelayMs?.max).toBeCloseTo(1000, -1);
    expect(report.latencyMs.max).toBeCloseTo(1001, -1);
    expect(report.latencyMs.p95).toBeGreaterThan(400);
  });

  it('keeps its rate whatever the server does, and says what was in time', async () => {
    const { report, transport } = await drive(
      {
        arrivals: { kind: 'poisson', ratePerSecond: 200 },
        warmUpMs: 1000,
        windowMs: 20_000,
        deadlineMs: 50,
        seed: '7',
      },
      (clock) => new PretendTransport(clock, (nowMs) => (Math.floor(nowMs / 1000) % 2 === 0 ? 10 : 100)),
    );
    expect(transport.sent.length / 21).toBeGreaterThan(185);
    expect(transport.sent.length / 21).toBeLessThan(215);
    expect(report.goodput?.deadlineMs).toBe(50);
    expect(report.goodput?.share).toBeGreaterThan(0.45);
    expect(report.goodput?.share).toBeLessThan(0.55);
  });

  it('counts what it may not send as NOT_SENT and what is never answered as UNANSWERED', async () => {
    const arrivalsMs = Array.from({ length: 100 }, (_, index) => index * 10);
    const { report } = await drive(
      {
        arrivals: { kind: 'trace', name: 't', arrivalsMs },
        warmUpMs: 0,
        windowMs: 1000,
        inFlightMax: 30,
        drainMsMax: 100,
      },
      (clock) => new PretendTransport(clock, () => Infinity),
    );
    expect(report.errors).toEqual({ NOT_SENT: 70, UNANSWERED: 30 });
    expect(report.succeeded).toBe(0);
  });

  it('gives the same run for the same seed', async () => {
    const once = async (seed: string): Promise<number[]> => {
      const { transport } = await drive(
        { arrivals: { kind: 'poisson', ratePerSecond: 50 }, warmUpMs: 0, windowMs: 1000, seed },
        (clock) => new PretendTransport(clock, () => 1),
      );
      return transport.sent;
    };
    expect(await once('a')).toEqual(await once('a'));
    expect(await once('a')).not.toEqual(await once('b'));
  });
});

describe('arrivals', () => {
  it('of a Poisson process have the mean and the variance of one', () => {
    const next = poissonArrivals(1000, 'seed');
    const gaps: number[] = [];
    let last = 0;
    for (let index = 0; index < 20_000; index += 1) {
      const at = next();
      gaps.push(at - last);
      last = at;
    }
    const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length;
    const variance = gaps.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / gaps.length;
    expect(mean).toBeCloseTo(1, 1);
    expect(variance).toBeCloseTo(1, 1);
  });

  it('of a trace never go back, however often it is repeated', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 100 }), { minLength: 1, maxLength: 20 }), (gaps) => {
        const arrivalsMs = gaps.map((_, index) => gaps.slice(0, index + 1).reduce((sum, gap) => sum + gap, 0));
        const next = traceArrivals(arrivalsMs);
        const seen = Array.from({ length: arrivalsMs.length * 3 }, next);
        expect(seen[0]).toBe(0);
        expect(seen.every((at, index) => index === 0 || at >= (seen[index - 1] ?? 0))).toBe(true);
        expect(seen.slice(0, arrivalsMs.length)).toEqual(arrivalsMs.map((at) => at - (arrivalsMs[0] ?? 0)));
      }),
    );
  });

  it('are read from a CSV file, header and comments passed over', () => {
    expect(parseTrace('t', 'at,model\n0,a\n0.5,b\n\n# pause\n2\n', 's')).toEqual([0, 500, 2000]);
    expect(() => parseTrace('t.csv', '1\nx\n', 'ms')).toThrow('t.csv, line 2: "x" is not a number');
    expect(() => completeLoadPlan({ arrivals: { kind: 'trace', name: 't', arrivalsMs: [2, 1] } })).toThrow(
      'trace t must be ascending moments of at least 0; it is 1 after 2 (arrival 2)',
    );
    expect(() => completeLoadPlan({ arrivals: { kind: 'closed', concurrency: 0 } })).toThrow(
      'concurrency must be a whole number from 1 to 100000; it is 0',
    );
  });
});
