import { expect, it } from 'vitest';
import type { VersionStatistics } from '#actors/device/protocol.js';
import { demandFromText, demandToText } from '#core/grid/demand.js';
import { modelName, modelVersion } from '#core/ids.js';
import { ModelStatisticsRecorder } from '#core/model-statistics.js';
import { DemandMeter, type MeteredDevice } from '#server/demand-meter.js';
import { VirtualClock } from '#sim/virtual-clock.js';

function world(): { clock: VirtualClock; recorder: ModelStatisticsRecorder; meter: DemandMeter } {
  const clock = new VirtualClock();
  const recorder = new ModelStatisticsRecorder();
  const statistics = (): readonly VersionStatistics[] => [
    { model: modelName('m'), version: modelVersion('1'), memoryBytes: 0, statistics: recorder.snapshot() },
  ];
  const ref = { ask: () => Promise.resolve(statistics()) } as unknown as MeteredDevice['ref'];
  return { clock, recorder, meter: new DemandMeter(clock, [{ descriptor: { id: 'cpu:0' }, ref }]) };
}

function run(items: number, ms: number): Parameters<ModelStatisticsRecorder['recordRun']>[0] {
  const none = { requestUs: 0, queueUs: 0, computeInputUs: 0, computeOutputUs: 0, finishedWallMs: 0 };
  return { requests: items, items, computeInferUs: ms * 1000, ...none };
}

it('tells items asked a second, refusals included, and the time of one, since the last look', async () => {
  const { clock, recorder, meter } = world();
  recorder.recordRun(run(4, 20));
  recorder.recordFailures(6, 0);
  await clock.settleUntil(clock.nowMs() + 5000);
  const row = { model: 'm', version: '1', device: 'cpu:0' };
  expect(await meter.look()).toEqual([{ ...row, itemsPerSecond: 2, msPerItem: 5 }]);
  recorder.recordRun(run(10, 30));
  await clock.settleUntil(clock.nowMs() + 10_000);
  expect(await meter.look()).toEqual([{ ...row, itemsPerSecond: 1, msPerItem: 3 }]);
  await clock.settleUntil(clock.nowMs() + 10_000);
  // What an item takes is not forgotten while nobody asks.
  expect(await meter.look()).toEqual([{ ...row, itemsPerSecond: 0, msPerItem: 3 }]);
});

it('is read as it was written, and nothing else is', () => {
  const rows = [{ model: 'm', version: '1', device: 'cpu:0', itemsPerSecond: 2, msPerItem: 5 }];
  expect(demandFromText(demandToText({ host: 'a', rows }), 'key')).toEqual({ host: 'a', rows });
  for (const text of ['', 'null', '{"host":"a"}', '{"host":"a","rows":[{"model":"m"}]}']) {
    expect(() => demandFromText(text, 'demand/a')).toThrow('demand/a is no record of demand');
  }
});
