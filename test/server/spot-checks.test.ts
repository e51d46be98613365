import { describe, expect, it } from 'vitest';
import type { DeviceMessage } from '#actors/device/protocol.js';
import { RandomStream } from '#core/random.js';
import { deviceId, hostId, modelName, modelVersion, type RequestId } from '#core/ids.js';
import type { InferenceOutcome, InferenceRequest } from '#core/inference.js';
import type { Candidate } from '#core/picker.js';
import { emptyRoutingTable } from '#core/routing-table.js';
import { answerDifference, DriftJudge } from '#core/split/drift-judge.js';
import { DeviceStanding } from '#server/device-standing.js';
import type { DeviceRef, Router } from '#server/router.js';
import { SpotChecks } from '#server/spot-checks.js';
import { RecordingMetrics } from '#sim/recording-metrics.js';
import { Simulation } from '#testing.js';

const model = modelName('sum');
const version = modelVersion('1');
const own = 'a/wasm:0';

interface Holder {
  readonly place: string;
  /** What it answers to x: x + this. */
  readonly adds: (run: number) => number;
  readonly digest?: string;
  /** It answers by a variant of the model. */
  readonly variant?: string;
}

function vector(name: string, values: readonly number[]): InferenceRequest['inputs'][number] {
  return { name, datatype: 'FP32', shape: [values.length], data: new Uint8Array(Float32Array.from(values).buffer) };
}

/** What the reference answers to x: x + this; undefined: it has no time, or nothing of the model. */
type Reference = (run: number) => number | undefined;

/** Host `a` looks after its wasm device; others hold the same. */
function world(holders: readonly Holder[], share = 1, reference?: Reference) {
  const simulation = new Simulation();
  const runs = new Map<string, number>();
  const drifted: string[] = [];
  const metrics = new RecordingMetrics();
  const devices = new Map(
    holders.map(({ place, adds, variant }): [string, DeviceRef] => [
      place,
      {
        tell: (message: DeviceMessage) => {
          if (message.type !== 'infer') return 'accepted';
          const run = (runs.get(place) ?? 0) + 1;
          runs.set(place, run);
          const [x] = message.request.inputs;
          const values = [...new Float32Array(Uint8Array.from(x!.data).buffer)].map((value) => value + adds(run));
          const outcome = {
            ok: true,
            outputs: [vector('y', values)],
            receipt: { variant },
          } as unknown as InferenceOutcome;
          message.replyTo.tell(outcome);
          return 'accepted';
        },
      },
    ]),
  );
  const candidates = holders.map(({ place, digest = 'same' }): Candidate => {
    const [host = '', device = ''] = place.split('/');
    const stage = { host: hostId(host), device: deviceId(device), digest };
    const replica = { id: place, model, version, stages: [stage] } as unknown as Candidate['replica'];
    return { replica, load: { itemsInFlight: 0, msPerItem: 0, ready: true } };
  });
  const table = {
    ...emptyRoutingTable({ policy: 'none', pick: () => -1 }),
    candidates: new Map([[model, new Map([[version, candidates]])]]),
  };
  const router: Router = { current: table, deviceOf: ({ replica }) => devices.get(replica.id) };
  const referenceRuns: string[] = [];
  const witness = {
    isFree: () => reference?.(referenceRuns.length + 1) !== undefined,
    run: ({ model: name, inputs }: InferenceRequest, digest: string): Promise<InferenceOutcome | undefined> => {
      const adds = reference?.(referenceRuns.length + 1);
      referenceRuns.push(`${name} ${digest}`);
      if (adds === undefined) return Promise.resolve(undefined);
      const values = [...new Float32Array(Uint8Array.from(inputs[0]!.data).buffer)].map((value) => value + adds);
      return Promise.resolve({ ok: true, outputs: [vector('y', values)], receipt: {} } as unknown as InferenceOutcome);
    },
  };
  const checks = new SpotChecks({
    host: hostId('a'),
    router,
    clock: simulation.clock,
    random: new RandomStream('spot'),
    metrics,
    share,
    ...(reference === undefined ? {} : { reference: witness }),
    isReference: (_, device) => device.startsWith('cpu'),
    onDrift: (device, reason) => drifted.push(`${device}: ${reason}`),
  });
  const device = checks.device(deviceId('wasm:0'), devices.get(own)!);
  let id = 0;
  const ask = (times: number): void => {
    for (let at = 0; at < times; at += 1) {
      id += 1;
      const request = {
        ...{ id: id as RequestId, model, version, inputs: [vector('x', [1, 2, 3])], outputs: [], items: 1, bytes: 12 },
        ...{ batchKey: '', priority: 0, queueTimeoutUs: 0, deadlineMs: Infinity, arrivedMs: 0 },
      } as unknown as InferenceRequest;
      device.tell({ type: 'infer', request, replyTo: { tell: () => 'accepted' } });
    }
  };
  /** One after the other, each with its check. */
  const askInTurn = async (times: number): Promise<void> => {
    for (let at = 0; at < times; at += 1) {
      ask(1);
      for (let step = 0; step < 4; step += 1) await Promise.resolve();
    }
  };
  return { ask, askInTurn, runs, drifted, metrics, referenceRuns };
}

describe('samples of answers that other holders run again', () => {
  it('cost nobody anything while all agree', () => {
    const { ask, runs, drifted } = world([
      { place: own, adds: () => 1 },
      { place: 'b/cpu:0', adds: () => 1 + 1e-4 },
    ]);
    ask(30);
    expect([runs.get(own), runs.get('b/cpu:0'), drifted]).toEqual([30, 30, []]);
  });

  it('are a small share of the requests', () => {
    const { ask, runs } = world(
      [
        { place: own, adds: () => 1 },
        { place: 'b/cpu:0', adds: () => 1 },
      ],
      0.01,
    );
    ask(5_000);
    expect(runs.get('b/cpu:0')).toBeGreaterThan(20);
    expect(runs.get('b/cpu:0')).toBeLessThan(100);
  });

  it('give up a device with a wrong executor after three of them, with what it said wrongly', () => {
    const { ask, drifted } = world([
      { place: own, adds: (run) => (run > 5 ? 2 : 1) },
      { place: 'b/cpu:0', adds: () => 1 },
    ]);
    ask(7);
    expect(drifted).toEqual([]);
    ask(10);
    expect(drifted).toHaveLength(1);
    expect(drifted[0]).toContain('wasm:0: 3 of 8 sampled answers were contradicted, the last one of sum by b/cpu:0');
    expect(drifted[0]).toContain("output 'y' at 0 is 3, the reference 2");
  });

  it('hold no variant against the exact model, nor the exact model against a variant', () => {
    const exact = { place: 'b/cpu:0', adds: () => 1 };
    const asked = world([{ place: own, adds: () => 2, variant: 'int8' }, exact]);
    const checked = world([
      { place: own, adds: () => 2 },
      { ...exact, variant: 'fp16' },
    ]);
    for (const { ask, drifted } of [asked, checked]) {
      ask(40);
      expect(drifted).toEqual([]);
    }
    expect(asked.runs.get('b/cpu:0')).toBeUndefined();
  });

  it('believe two that agree against the device, of whatever kind they are', () => {
    const { ask, drifted } = world([
      { place: own, adds: () => 2 },
      { place: 'b/wasm:0', adds: () => 1 },
      { place: 'c/wasm:0', adds: () => 1 },
    ]);
    ask(3);
    expect(drifted).toHaveLength(1);
  });

  it('give up nobody for a holder that is wrong itself, for one word against another, or for a model that draws', () => {
    const wrongOther = world([
      { place: own, adds: () => 1 },
      { place: 'b/cpu:0', adds: () => 2 },
      { place: 'c/cpu:0', adds: () => 1 },
    ]);
    const wordAgainstWord = world([
      { place: own, adds: () => 1 },
      { place: 'b/wasm:0', adds: () => 2 },
    ]);
    const draws = world([
      { place: own, adds: (run) => (run * 37) % 11 },
      { place: 'b/cpu:0', adds: (run) => (run * 41) % 13 },
    ]);
    for (const { ask, drifted } of [wrongOther, wordAgainstWord, draws]) {
      ask(40);
      expect(drifted).toEqual([]);
    }
  });

  it('are not taken where nobody else has the same files', () => {
    const { ask, runs } = world([
      { place: own, adds: () => 1 },
      { place: 'b/cpu:0', adds: () => 5, digest: 'a variant' },
    ]);
    ask(10);
    expect(runs.get('b/cpu:0')).toBeUndefined();
  });
});

describe('samples of answers of which nobody else has the files', () => {
  const alone = { place: own, adds: (run: number) => (run > 5 ? 2 : 1) };

  it('are run again on the reference, and a device that drifts is given up with what it said wrongly', async () => {
    const { askInTurn, drifted, referenceRuns } = world([alone], 1, () => 1);
    await askInTurn(7);
    expect(drifted).toEqual([]);
    await askInTurn(3);
    expect(drifted).toEqual([
      "wasm:0: 3 of 8 sampled answers were contradicted, the last one of sum by the reference: output 'y' at 0 is 3, the reference 2",
    ]);
    // Each difference is asked about twice, and the files are those of the device.
    expect(referenceRuns.slice(0, 8)).toHaveLength(8);
    expect(new Set(referenceRuns)).toEqual(new Set(['sum same']));
  });

  it('are not taken while the reference has no time, and count for nothing when it does not answer', async () => {
    const busy = world([alone], 1, () => undefined);
    await busy.askInTurn(20);
    expect([busy.referenceRuns, busy.drifted]).toEqual([[], []]);
    let asked = 0;
    const silent = world([alone], 1, () => {
      asked += 1;
      // Free when it is asked whether it is, and gone when it is to run.
      return asked % 3 === 0 ? undefined : 1;
    });
    await silent.askInTurn(20);
    expect(silent.referenceRuns.length).toBeGreaterThan(5);
    expect(silent.drifted).toEqual([]);
  });

  it('cost a device nothing where the model answers otherwise each time', async () => {
    const { askInTurn, drifted } = world([{ place: own, adds: (run) => (run * 37) % 11 }], 1, (run) => (run * 41) % 13);
    await askInTurn(40);
    expect(drifted).toEqual([]);
  });

  it('decide between two holders of which neither is believed more', async () => {
    const other = { place: 'b/wasm:0', adds: () => 1 };
    const wrong = world([{ place: own, adds: () => 2 }, other], 1, () => 1);
    await wrong.askInTurn(3);
    expect(wrong.drifted).toHaveLength(1);
    const right = world([{ place: own, adds: () => 2 }, other], 1, () => 2);
    await right.askInTurn(20);
    expect(right.drifted).toEqual([]);
  });
});

describe('a device whose answers are wrong', () => {
  it('stays out of service whatever it says of itself', () => {
    const told: string[] = [];
    const standing = new DeviceStanding((device, ready, reason) => told.push(`${device} ${String(ready)} ${reason}`));
    const device = deviceId('wasm:0');
    standing.tell(device, 'ready', '');
    standing.giveUp(device, 'wrong');
    standing.tell(device, 'ready', '');
    expect(told).toEqual(['wasm:0 true ', 'wasm:0 false wrong']);
  });

  it('is one whose latest samples are wrong: old ones are forgotten', () => {
    const judge = new DriftJudge({ wrongMax: 2, window: 3 });
    expect(
      (['wrong', 'equal', 'equal', 'equal', 'wrong', 'unclear', 'wrong'] as const).map((one) => judge.add(one)),
    ).toEqual([false, false, false, false, false, false, true]);
  });

  it('differs by more than engines do', () => {
    expect(answerDifference([vector('y', [100, 1])], [vector('y', [101, 0])])).toBe('');
    expect(answerDifference([vector('y', [100, 1])], [vector('y', [103, 1])])).toContain('at 0 is 100');
    expect(answerDifference([], [vector('y', [1])])).toContain('missing');
  });
});
