import { describe, expect, it } from 'vitest';
import { intarsiaError } from '#core/errors.js';
import { modelName, modelVersion } from '#core/ids.js';
import { defaultDynamicBatching, type ModelConfig } from '#core/model-config.js';
import { seededRandom } from '#sim/random.js';
import { DeviceWorld, cpu, doubler, modelConfig, numbers, type Answer } from './device-world.js';

/** Codes a request may fail with while executors crash, models come and go, and queues are short. */
const expectedFailures = new Set([
  'CANCELLED',
  'DEADLINE_EXCEEDED',
  'DEVICE_UNAVAILABLE',
  'EXECUTION_FAILED',
  'EXECUTOR_LOST',
  'MODEL_NOT_READY',
  'MODEL_QUARANTINED',
  'OUT_OF_MEMORY',
  'QUEUE_FULL',
  'QUEUE_TIMEOUT',
]);

const configs: ModelConfig[] = [
  modelConfig('m0'),
  modelConfig('m1', {
    dynamicBatching: { ...defaultDynamicBatching, queueDelayUsMax: 5000, preferredBatchSizes: [4] },
  }),
  modelConfig('m2', {
    dynamicBatching: {
      ...defaultDynamicBatching,
      priorityLevels: 2,
      defaultPriorityLevel: 2,
      defaultQueuePolicy: { timeoutAction: 'REJECT', defaultTimeoutUs: 60_000, allowTimeoutOverride: true, sizeMax: 0 },
    },
  }),
  modelConfig('m3', { dynamicBatching: { ...defaultDynamicBatching, preserveOrdering: true } }),
];

interface Run {
  readonly answers: { readonly answer: Answer; readonly values: number[]; readonly model: string }[];
  readonly world: DeviceWorld;
}

async function simulate(seed: number): Promise<Run> {
  const random = seededRandom(seed);
  const faults = random.stream('faults');
  const innocent = doubler({
    memoryBytes: 3500,
    runMs: (items) => 2 + items,
    compute: (inputs) => {
      if (faults.next() < 0.02) throw intarsiaError('EXECUTION_FAILED', 'a passing fault');
      return doubler().compute(inputs);
    },
  });
  const guilty = {
    ...innocent,
    runCrashes: () => faults.next() < 0.04,
    loadFault: () => (faults.next() < 0.1 ? ('crash' as const) : undefined),
  };
  const world = new DeviceWorld({
    seed,
    models: { a0: guilty, a1: innocent, a2: innocent, a3: innocent, b0: guilty },
    descriptor: { ...cpu, permits: 2 },
    memoryBytesMax: 12_000,
    limits: { queueRequestsMax: 20 },
    restartMsMin: 10,
    restartMsMax: 200,
    canaryMs: 500,
    usageMs: 200,
    executor: { startFault: () => (faults.next() < 0.2 ? intarsiaError('DEVICE_UNAVAILABLE', 'no luck') : undefined) },
  });
  // Disturb.
  const answers: Run['answers'] = [];
  const loads: unknown[][] = configs.map((config, index) => world.requestLoad(world.placement(`a${index}`, config)));
  const arrivals = random.stream('arrivals');
  for (let round = 0; round < 600; round += 1) {
    await world.pass(arrivals.next() * 30);
    const draw = arrivals.next();
    if (draw < 0.02) loads.push(world.requestLoad(world.placement(draw < 0.01 ? 'b0' : 'a0', configs[0]!)));
    else if (draw < 0.025) {
      const name = modelName(`m${arrivals.below(4)}`);
      world.device.tell({
        type: 'unload',
        model: name,
        version: modelVersion('1'),
        replyTo: { tell: () => 'accepted' },
      });
    } else if (draw < 0.07) {
      const index = arrivals.below(4);
      loads.push(world.requestLoad(world.placement(`a${index}`, configs[index]!)));
    } else if (draw < 0.12) {
      const victim = answers[answers.length - 1 - arrivals.below(Math.max(1, Math.min(10, answers.length)))];
      if (victim !== undefined) world.cancel(victim.answer, `m${arrivals.below(4)}`);
    } else {
      for (let count = arrivals.below(6); count > 0; count -= 1) {
        const values = Array.from({ length: 1 + arrivals.below(3) }, () => arrivals.below(1000));
        const deadlineMs = arrivals.next() < 0.3 ? world.nowMs + arrivals.next() * 100 : Infinity;
        const changes = { deadlineMs, priority: arrivals.below(3), queueTimeoutUs: arrivals.below(2) * 20_000 };
        const model = `m${arrivals.below(4)}`;
        answers.push({ values, model, answer: world.infer(model, values, changes) });
      }
    }
  }
  // Calm down: what waits has all the time it needs, then the device goes.
  await world.pass(60_000);
  const drained: boolean[] = [];
  world.device.tell({ type: 'drain', replyTo: { tell: () => (drained.push(true), 'accepted') } });
  await world.pass(60_000);
  world.system.stop(world.device);
  await world.pass(1);
  expect(loads.every((outcomes) => outcomes.length === 1)).toBe(true);
  expect(drained).toEqual([true]);
  return { answers, world };
}

describe('a device in a bad world', () => {
  const seeds = Array.from({ length: 25 }, (_, index) => index + 1);
  it.each(seeds)('gives every request exactly one outcome, and right values: seed %i', async (seed) => {
    const { answers } = await simulate(seed);
    const ends = new Map<string, number>();
    for (const { answer, values, model } of answers) {
      expect(answer.outcomes).toHaveLength(1);
      const outcome = answer.outcomes[0]!;
      const end = outcome.ok ? 'ok' : outcome.error.code;
      ends.set(end, (ends.get(end) ?? 0) + 1);
      // Others suffer from a crash, nobody is punished for it but the guilty.
      if (model !== 'm0') expect(end).not.toBe('MODEL_QUARANTINED');
      if (outcome.ok) expect(numbers(outcome.outputs[0]!)).toEqual(values.map((value) => 2 * value));
      else expect(expectedFailures).toContain(end);
    }
    // The world was bad, and the device served all the same.
    expect(ends.get('ok') ?? 0).toBeGreaterThan(answers.length / 4);
    expect(ends.get('EXECUTOR_LOST') ?? 0).toBeGreaterThan(0);
  });

  it('does the same again with the same seed', async () => {
    const [first, second, other] = [await simulate(3), await simulate(3), await simulate(4)];
    expect(first.world.simulation.traceHash()).toBe(second.world.simulation.traceHash());
    expect(first.world.simulation.traceHash()).not.toBe(other.world.simulation.traceHash());
  });
});
