import { describe, expect, it } from 'vitest';
import type { InferenceRequest, SequenceStep } from '#core/inference.js';
import type { ModelConfig } from '#core/model-config.js';
import type { TensorSpec } from '#core/tensor.js';
import { DeviceWorld, doubler, int32, modelConfig, numbers, valueOf, type Answer } from './device-world.js';

const spec = (name: string): TensorSpec => ({ name, datatype: 'INT32', shape: [-1, 1] });

/** Y = X + (START ? 0 : SUM); SUM' = Y. What a stateful model does with an implicit state. */
const accumulator = doubler({
  inputs: [spec('X'), spec('START'), spec('SUM')],
  outputs: [spec('Y'), spec('SUM_OUT')],
  compute: (inputs) => {
    const [x, start, sum] = ['X', 'START', 'SUM'].map((name) => numbers(inputs.find((each) => each.name === name)!));
    const y = x!.map((value, index) => value + (start![index] === 1 ? 0 : sum![index]!));
    return ['Y', 'SUM_OUT'].map((name) => ({ name, datatype: 'INT32', shape: [y.length, 1], data: int32(...y) }));
  },
});
const config: ModelConfig = modelConfig('m', {
  sequenceBatching: {
    idleUsMax: 1_000_000,
    controls: [{ name: 'START', kind: 'START', datatype: 'INT32', falseTrue: [0, 1] }],
    states: [{ inputName: 'SUM', outputName: 'SUM_OUT', datatype: 'INT32', dims: [1] }],
    strategy: {
      kind: 'oldest',
      candidateSequencesMax: 4,
      preferredBatchSizes: [],
      queueDelayUsMax: 0,
      preserveOrdering: false,
    },
  },
});

function send(world: DeviceWorld, id: bigint, value: number, step: Partial<SequenceStep> = {}): Answer {
  const changes: Partial<InferenceRequest> = { sequence: { id, start: false, end: false, ...step } };
  return world.infer('m', [value], changes);
}

describe('sequences on a device', () => {
  it('share batches, keep their own states, and do not show them to the client', async () => {
    const world = new DeviceWorld({ models: { a: accumulator } });
    await world.load('a', config);
    const answers = [
      send(world, 1n, 5, { start: true }),
      send(world, 2n, 100, { start: true }),
      send(world, 1n, 1),
      send(world, 2n, 10),
      send(world, 1n, 1, { end: true }),
    ];
    await world.pass(100);
    expect(answers.map(valueOf)).toEqual([[5], [100], [6], [110], [7]]);
    expect(world.runsOf('a')).toEqual([
      [1000, 2],
      [1010, 2],
      [1020, 1],
    ]);
    const outcome = answers[0]!.outcomes[0]!;
    expect(outcome.ok && outcome.outputs.map((tensor) => tensor.name)).toEqual(['Y']);
  });

  it('answer with outputs asked for by name, states asked of the executor beside', async () => {
    const world = new DeviceWorld({ models: { a: accumulator } });
    await world.load('a', config);
    const answer = world.infer('m', [3], { sequence: { id: 9n, start: true, end: false }, outputs: ['Y'] });
    await world.pass(10);
    expect(valueOf(answer)).toEqual([3]);
    expect(world.executors.runs.at(-1)!.outputsWanted).toEqual(['Y', 'SUM_OUT']);
  });

  it('are refused without a start, with Triton’s words, and forgotten after silence', async () => {
    const world = new DeviceWorld({ models: { a: accumulator } });
    await world.load('a', config);
    expect(valueOf(await settled(world, send(world, 7n, 1)))).toBe('INVALID_ARGUMENT');
    expect(valueOf(await settled(world, send(world, 7n, 1, { start: true })))).toEqual([1]);
    await world.pass(999);
    expect(valueOf(await settled(world, send(world, 7n, 1)))).toEqual([2]);
    await world.pass(1001);
    const late = await settled(world, send(world, 7n, 1));
    expect(late.outcomes[0]).toMatchObject({
      ok: false,
      error: {
        code: 'INVALID_ARGUMENT',
        message:
          "inference request for sequence 7 to model 'm' must specify the START flag on the first request of the sequence",
      },
    });
  });

  it('keep their states when the executor crashes, since those live here', async () => {
    const world = new DeviceWorld({ models: { a: accumulator } });
    await world.load('a', config);
    expect(valueOf(await settled(world, send(world, 1n, 5, { start: true })))).toEqual([5]);
    expect(() => world.executors.current.crash('signal 11')).toThrow('signal 11');
    expect(valueOf(await settled(world, send(world, 1n, 1), 1000))).toEqual([6]);
  });
});

async function settled(world: DeviceWorld, answer: Answer, ms = 10): Promise<Answer> {
  await world.pass(ms);
  return answer;
}
