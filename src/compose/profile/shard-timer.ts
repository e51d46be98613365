/** Loads one shard on a device's executor and times its runs, for so long and so often as was asked for. */
import { randomUUID } from 'node:crypto';
import { unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { heldBytes } from '#core/held-bytes.js';
import { sessionId } from '#core/ids.js';
import type { EncodedModel } from '#core/onnx/writer.js';
import { timeStats, type TimeStats } from '#core/profile/time-stats.js';
import type { Tensor } from '#core/tensor.js';
import type { Clock } from '#ports/clock.js';
import type { Executor, LoadRequest, RunRequest, RunResult } from '#ports/executor.js';
import { writeModelFile } from '../split/shard-files.js';
import { runInput } from '../split/shard-runner.js';

/** Runs before time counts: first runs allocate and compile. */
export const warmRuns = 2;

export interface TimingBounds {
  /** Timed runs, at most. */
  readonly runsMax: number;
  /** Milliseconds of timed runs after which no more are begun, once there are three. */
  readonly shardMs: number;
  readonly clock: Clock;
  /** Moment by the clock after which no more are begun. */
  readonly endMs: number;
}

export interface TimedModel {
  readonly encoded: Pick<EncodedModel, 'parts' | 'byteLength'>;
  readonly inputs: readonly Tensor[];
  readonly options: LoadRequest['options'];
  readonly estimate?: NonNullable<LoadRequest['estimate']>;
  /** Where its file is written; side files lie there. */
  readonly folder: string;
  /** Its only output is what it takes: each run gets what the one before has left at the executor. */
  readonly isEcho?: boolean;
}

export interface TimedRuns {
  /** Inside the executor. */
  readonly times: TimeStats;
  /** What a run took beside that, seen from this process, ms. */
  readonly hopMs: readonly number[];
  readonly loadedBytes: number;
  readonly optimization: string;
  readonly notes: readonly string[];
  /** Runs altogether, warm ones included. */
  readonly runs: number;
}

const runsMin = 3;

/** @throws what `Executor.load` and `run` throw. The session is gone afterwards. */
export async function timeModel(executor: Executor, model: TimedModel, bounds: TimingBounds): Promise<TimedRuns> {
  const { clock, runsMax, shardMs, endMs } = bounds;
  const name = `profile-${randomUUID()}`;
  const session = sessionId(name);
  const path = join(model.folder, `${name}.onnx`);
  const { digest } = await writeModelFile(path, model.encoded);
  try {
    const { estimate } = model;
    const loaded = await executor.load({
      session,
      artifact: { digest, path },
      model: { name: 'profiled', version: '1' },
      options: model.options,
      ...(estimate === undefined ? {} : { estimate }),
    });
    try {
      const inputs = model.inputs.map((tensor) => runInput(tensor, tensor.name));
      const leaveOutputs = model.isEcho === true;
      let request: RunRequest = { session, inputs, outputs: [], leaveOutputs };
      let release: RunResult['release'];
      const times: number[] = [];
      const hopMs: number[] = [];
      let startMs = clock.nowMs();
      for (let run = 0; run < warmRuns + runsMax; run += 1) {
        if (run === warmRuns) startMs = clock.nowMs();
        const beganMs = clock.nowMs();
        const result = await executor.run(request);
        const wallMs = clock.nowMs() - beganMs;
        const ms = (result.computeInputUs + result.computeInferUs + result.computeOutputUs) / 1000;
        release?.();
        release = result.release;
        const left = leaveOutputs ? result.outputs[0]?.[heldBytes] : undefined;
        if (left !== undefined) request = { ...request, inputs: inputs.map((input) => ({ ...input, held: [left] })) };
        if (run < warmRuns) continue;
        times.push(ms);
        hopMs.push(Math.max(0, wallMs - ms));
        const nowMs = clock.nowMs();
        if (times.length >= runsMin && (nowMs - startMs >= shardMs || nowMs >= endMs)) break;
      }
      release?.();
      return {
        ...{ times: timeStats(times), hopMs, runs: warmRuns + times.length },
        ...{ loadedBytes: loaded.memoryBytes, optimization: loaded.optimization, notes: loaded.notes },
      };
    } finally {
      await executor.unload(session);
    }
  } finally {
    await unlink(path).catch(() => undefined);
  }
}
