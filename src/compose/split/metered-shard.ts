/** A shard of a plan on a device's executor, with inputs as the whole model gives them: what is measured there. */
import { randomUUID } from 'node:crypto';
import { unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { sessionId } from '#core/ids.js';
import type { ValueTypes } from '#core/split/boundary-type.js';
import type { Cutter } from '#core/split/cut.js';
import { encodeShard } from '#core/split/shard-writer.js';
import type { Tensor } from '#core/tensor.js';
import type { Executor, LoadedSession, RunRequest } from '#ports/executor.js';
import type { ModelValues } from './model-values.js';
import type { PlanDevice } from './plan-devices.js';
import { writeModelFile } from './shard-files.js';
import { runInput } from './shard-runner.js';

export interface ShardSource {
  readonly cutter: Cutter;
  readonly types: ValueTypes;
  readonly values: ModelValues;
  /** By batch size. */
  readonly inputs: ReadonlyMap<number, readonly Tensor[]>;
  /** Where shards are written; the model's side files lie there. */
  readonly folder: string;
}

/** A shard where it is to run. Positions are those of nodes. */
export interface PlacedShard {
  readonly device: PlanDevice;
  readonly from: number;
  readonly to: number;
  readonly batch: number;
}

export interface MeteredShard {
  readonly request: RunRequest;
  readonly loaded: LoadedSession;
  /** Names of what it gives. */
  readonly outputs: readonly string[];
  readonly weightBytes: number;
  /** Bytes of values that it is given and gives in one run. */
  readonly inputBytes: number;
  readonly outputBytes: number;
  close(): Promise<void>;
}

/** Undefined where the model has no such shard, or no inputs of that size. @throws what `Executor.load` throws. */
export async function openShard(
  executor: Executor,
  { device, from, to, batch }: PlacedShard,
  { cutter, types, values, inputs, folder }: ShardSource,
): Promise<MeteredShard | undefined> {
  const given = inputs.get(batch);
  if (given === undefined) return undefined;
  const { length: nodes } = cutter.graph.nodes;
  const plan = cutter.cut([from, to].filter((position) => position > 0 && position < nodes));
  const shard = plan.shards.find((draft) => draft.from === from && draft.to === to);
  if (shard === undefined) return undefined;
  const tensors = await values.values(given, [...shard.inputs, ...shard.outputs]);
  const name = randomUUID();
  const session = sessionId(name);
  const path = join(folder, `${name}.onnx`);
  const encoded = encodeShard(plan, shard, types);
  const { digest } = await writeModelFile(path, encoded);
  const remove = (): Promise<void> => unlink(path).catch(() => undefined);
  try {
    const loaded = await executor.load({
      session,
      artifact: { digest, path },
      model: { name: 'shard', version: '1' },
      options: { intraOpThreads: device.threads, optimization: 'all' },
    });
    const bytesOf = (names: readonly string[]): number =>
      names.reduce((sum, input) => sum + (tensors.get(input)?.data.byteLength ?? 0), 0);
    return {
      ...{ loaded, outputs: shard.outputs, weightBytes: encoded.weightBytes },
      ...{ inputBytes: bytesOf(shard.inputs), outputBytes: bytesOf(shard.outputs) },
      request: { session, inputs: shard.inputs.map((input) => runInput(tensors.get(input), input)), outputs: [] },
      close: async () => {
        await executor.unload(session);
        await remove();
      },
    };
  } catch (error) {
    await remove();
    throw error;
  }
}
