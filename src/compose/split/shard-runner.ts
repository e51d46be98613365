/** Runs the shards of a cut one after another on executors: the plain chain against which pipelines are judged too. */
import { join } from 'node:path';
import { IntarsiaError, intarsiaError, messageOf } from '#core/errors.js';
import { sessionId, type SessionId } from '#core/ids.js';
import type { OptimizationLevel } from '#core/provider.js';
import type { ValueTypes } from '#core/split/boundary-type.js';
import type { CutPlan } from '#core/split/cut.js';
import { encodeShard } from '#core/split/shard-writer.js';
import type { Tensor } from '#core/tensor.js';
import type { Executor, LoadedSession } from '#ports/executor.js';
import { unlink } from 'node:fs/promises';
import { writeModelFile } from './shard-files.js';

export interface Stage {
  /** Such as `cpu`. */
  readonly device: string;
  readonly executor: Executor;
}

export interface ChainOptions {
  readonly plan: CutPlan;
  readonly types: ValueTypes;
  /** One for each shard. */
  readonly stages: readonly Stage[];
  readonly optimization: OptimizationLevel;
  /** Where shard files are written; the model's side files lie there already. */
  readonly folder: string;
  /** Unique among the sessions of the executors. */
  readonly name: string;
  readonly threads: number;
}

/** A shard that its device does not take; `details.stage` counts from 0. */
function stageFailure(index: number, device: string, thrown: unknown): IntarsiaError {
  const code = thrown instanceof IntarsiaError ? thrown.code : 'INTERNAL';
  return intarsiaError(code, `stage ${index + 1} on ${device}: ${messageOf(thrown)}`, { stage: index, device }, thrown);
}

/** The loaded shards of one cut. */
export class ShardChain {
  /** What loading had to change, such as a lower optimisation level. */
  readonly notes: readonly string[];
  readonly #plan: CutPlan;
  readonly #stages: readonly Stage[];
  readonly #sessions: readonly SessionId[];

  private constructor(options: ChainOptions, sessions: readonly SessionId[], notes: readonly string[]) {
    this.#plan = options.plan;
    this.#stages = options.stages;
    this.#sessions = sessions;
    this.notes = notes;
  }

  /** Writes and loads every shard. @throws what `Executor.load` throws, with the stage; nothing stays loaded then. */
  static async load(options: ChainOptions): Promise<ShardChain> {
    const { plan, types, stages, optimization, folder, name, threads } = options;
    const sessions: SessionId[] = [];
    const notes: string[] = [];
    const paths: string[] = [];
    try {
      for (const shard of plan.shards) {
        const { device, executor } = stages[shard.index] as Stage;
        const path = join(folder, `${name}-shard-${shard.index}.onnx`);
        paths.push(path);
        const { digest } = await writeModelFile(path, encodeShard(plan, shard, types));
        const session = sessionId(`${name}:${shard.index}`);
        let loaded: LoadedSession;
        try {
          loaded = await executor.load({
            session,
            artifact: { digest, path },
            model: { name: `shard-${shard.index + 1}`, version: '1' },
            options: { intraOpThreads: threads, optimization },
          });
        } catch (error) {
          throw stageFailure(shard.index, device, error);
        }
        sessions.push(session);
        for (const note of loaded.notes) notes.push(`stage ${shard.index + 1} on ${device}: ${note}`);
      }
    } catch (error) {
      await unload(stages, sessions);
      throw error;
    } finally {
      for (const path of paths) await unlink(path).catch(() => undefined);
    }
    return new ShardChain(options, sessions, notes);
  }

  /**
   * Runs the chain. Outputs in the model's order. @throws what `Executor.run` throws, with the stage.
   * @param carry What becomes of a value on its way from one shard to the next.
   */
  async run(inputs: readonly Tensor[], carry: (tensor: Tensor) => Tensor = same): Promise<readonly Tensor[]> {
    const crossing = new Set(this.#plan.crossings.map(({ name }) => name));
    const sent = new Map<string, Tensor>();
    const values = new Map(inputs.map((tensor) => [tensor.name, tensor]));
    for (const shard of this.#plan.shards) {
      const { device, executor } = this.#stages[shard.index] as Stage;
      try {
        const { outputs } = await executor.run({
          session: this.#sessions[shard.index] as SessionId,
          inputs: shard.inputs.map((name) => runInput(sent.get(name) ?? values.get(name), name)),
          outputs: [],
        });
        for (const tensor of outputs) {
          values.set(tensor.name, tensor);
          if (crossing.has(tensor.name)) sent.set(tensor.name, carry(tensor));
        }
      } catch (error) {
        throw stageFailure(shard.index, device, error);
      }
    }
    return this.#plan.graph.outputs.map(({ name }) => {
      const tensor = values.get(name);
      if (tensor === undefined) throw intarsiaError('EXECUTION_FAILED', `output ${name} did not come out of any shard`);
      return tensor;
    });
  }

  async unload(): Promise<void> {
    await unload(this.#stages, this.#sessions);
  }
}

function same(tensor: Tensor): Tensor {
  return tensor;
}

async function unload(stages: readonly Stage[], sessions: readonly SessionId[]): Promise<void> {
  for (const [index, session] of sessions.entries()) await stages[index]?.executor.unload(session);
}

/** A tensor as an executor takes it. */
export function runInput(
  tensor: Tensor | undefined,
  name: string,
): Pick<Tensor, 'name' | 'datatype' | 'shape'> & { readonly chunks: readonly Uint8Array[] } {
  if (tensor === undefined) throw intarsiaError('INVALID_ARGUMENT', `value ${name} is missing`);
  return { name, datatype: tensor.datatype, shape: tensor.shape, chunks: [tensor.data] };
}
