/**
 * Runs of the shards of a plan on all its devices at once, and the pace of each: in loops, where each device runs the same over
 * and over; and as a pipe, where values go from shard to shard as when the plan is served.
 */
import { heldBytes, type HeldBytes } from '#core/held-bytes.js';
import { medianOf } from '#core/profile/time-stats.js';
import { pacesTogether } from '#core/split/company-pace.js';
import type { Tensor } from '#core/tensor.js';
import { joinedInput } from '#actors/device/run-layout.js';
import type { Clock } from '#ports/clock.js';
import type { Executor, RunInput, RunRequest, RunResult } from '#ports/executor.js';

/** A shard on its device, loaded. */
export interface CompanyRun {
  readonly executor: Executor;
  readonly request: RunRequest;
  /** Names of what it gives. */
  readonly outputs: readonly string[];
}

/** Milliseconds between answers by shard, several times; empty where too little was seen. */
export type Paces = readonly (readonly number[])[];

/** Whether enough was seen, by the answers of whoever has the fewest. */
export type Until = (answers: number) => boolean;

/** Runs that wait at each device, the one under way included. */
const inFlight = 2;

/** Milliseconds in the executor. */
export function computeMs({ computeInputUs, computeInferUs, computeOutputUs }: RunResult): number {
  return (computeInputUs + computeInferUs + computeOutputUs) / 1000;
}

/** Each shard by itself, with the next run waiting at its device. */
export async function paceOfLoops(runs: readonly CompanyRun[], clock: Clock, isEnough: Until): Promise<Paces> {
  const answers: number[][] = runs.map(() => []);
  const least = (): number => Math.min(...answers.map(({ length }) => length));
  const client = async ({ executor, request }: CompanyRun, mine: number[]): Promise<void> => {
    while (!isEnough(least())) {
      const result = await executor.run(request);
      result.release?.();
      mine.push(clock.nowMs());
    }
  };
  await Promise.all(
    runs.flatMap((run, index) => Array.from({ length: inFlight }, () => client(run, answers[index] as number[]))),
  );
  return pacesTogether(answers, inFlight);
}

/**
 * One shard after the other, in this order, for as many requests at once as keep them all at work. The slowest has the pace of
 * the whole pipe, and the others the same part of it that they compute of what the slowest computes.
 */
export async function paceOfPipe(runs: readonly CompanyRun[], clock: Clock, isEnough: Until): Promise<Paces> {
  const clients = inFlight * runs.length;
  const computed: number[][] = runs.map(() => []);
  const answers: number[] = [];
  const client = async (): Promise<void> => {
    while (!isEnough(answers.length)) {
      const given = new Map<string, Tensor>();
      const releases: (() => void)[] = [];
      for (const [index, { executor, request, outputs }] of runs.entries()) {
        const inputs = request.inputs.map((input) => handedOn(input, given.get(input.name)));
        const result = await executor.run({ ...request, inputs });
        computed[index]?.push(computeMs(result));
        if (result.release !== undefined) releases.push(result.release);
        for (const output of result.outputs) if (outputs.includes(output.name)) given.set(output.name, output);
      }
      for (const release of releases) release();
      answers.push(clock.nowMs());
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  const [pipe = []] = pacesTogether([answers], clients);
  const middles = computed.map(medianOf);
  const slowest = Math.max(...middles);
  return middles.map((ms) => pipe.map((paceMs) => (slowest > 0 ? (paceMs * ms) / slowest : paceMs)));
}

/** Where the shard before has left it. */
function handedOn(input: RunInput, tensor: Tensor | undefined): RunInput {
  if (tensor === undefined) return input;
  const { name, datatype, shape } = tensor;
  return joinedInput({ name, datatype, shape }, [tensor]);
}

/**
 * Runs each shard once, so that what one gives to another lies where its executor left it from then on. Answers the runs with
 * that, and what lets go of it.
 */
export async function handOn(
  runs: readonly CompanyRun[],
): Promise<{ readonly runs: readonly CompanyRun[]; readonly letGo: () => void }> {
  const wanted = new Set(runs.flatMap(({ request }) => request.inputs.map(({ name }) => name)));
  const left = new Map<string, HeldBytes>();
  const releases: (() => void)[] = [];
  const handed: CompanyRun[] = [];
  for (const run of runs) {
    const inputs = run.request.inputs.map((input): RunInput => {
      const held = left.get(input.name);
      return held === undefined ? input : { ...input, held: [held] };
    });
    const request = { ...run.request, inputs, leaveOutputs: run.outputs.some((name) => wanted.has(name)) };
    const result = await run.executor.run(request);
    handed.push({ ...run, request });
    if (result.release !== undefined) releases.push(result.release);
    for (const output of result.outputs) {
      const held = output[heldBytes];
      if (held !== undefined) left.set(output.name, held);
    }
  }
  return {
    runs: handed,
    letGo: () => {
      for (const release of releases) release();
    },
  };
}
