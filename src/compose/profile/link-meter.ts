/**
 * Measures the way between executors of this host: a model that gives back what it is given, in several sizes. What a run
 * takes beside its computation is the way there and back with the same bytes, and half of it the way once. Bytes go as they
 * do from stage to stage: what a run gives is left where it lies, and is what the next one takes.
 */
import { GraphBuilder } from '#core/onnx/builder.js';
import { encodeModel } from '#core/onnx/writer.js';
import { profileSchema, type LinkRecord } from '#core/profile/profile-record.js';
import { timeStats } from '#core/profile/time-stats.js';
import { KiB, MiB } from '#core/units.js';
import type { Executor } from '#ports/executor.js';
import { timeModel, type TimingBounds } from './shard-timer.js';

const sizes: readonly number[] = [64, 16 * KiB, MiB, 8 * MiB];

export interface LinkOptions {
  readonly host: string;
  readonly device: string;
  readonly threads: number;
  readonly folder: string;
  readonly bounds: TimingBounds;
  readonly wallMs: number;
}

/** One record a size and direction, as both ways were measured together. @throws what `timeModel` throws. */
export async function measureLink(executor: Executor, options: LinkOptions): Promise<readonly LinkRecord[]> {
  const { host, device, threads, folder, bounds, wallMs } = options;
  const graph = new GraphBuilder('echo');
  const given = graph.input('given', 'FP32', ['n']);
  graph.output(given, 'FP32', ['n'], 'returned');
  const encoded = encodeModel(graph.model({ opset: 13 }));
  const records: LinkRecord[] = [];
  for (const bytes of sizes) {
    const { hopMs } = await timeModel(
      executor,
      {
        ...{ encoded, folder, isEcho: true },
        inputs: [{ name: 'given', datatype: 'FP32', shape: [bytes / 4], data: new Uint8Array(bytes) }],
        options: { intraOpThreads: threads, optimization: 'all' },
      },
      bounds,
    );
    const times = timeStats(hopMs.map((ms) => ms / 2));
    if (times.count === 0) continue;
    const [here, there] = [
      { host, device: '' },
      { host, device },
    ];
    const record = { type: 'link', schema: profileSchema, bytes, times, atMs: wallMs } as const;
    records.push({ ...record, from: here, to: there }, { ...record, from: there, to: here });
  }
  return records;
}
