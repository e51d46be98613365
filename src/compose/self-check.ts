/**
 * A host's check of itself: requests through its own gRPC port, each answered by the same model on different devices, and
 * the answers compared. What passes here is what a client gets.
 */
import { messageOf } from '#core/errors.js';
import type { Random } from '#ports/random.js';
import type { Clock } from '#ports/clock.js';
import type { SelfCheck, SelfCheckProvider } from '#cli/program.js';
import type { InferenceClient } from '#client/index.js';
import type { DeviceDescriptor } from '#core/device.js';

export interface SelfCheckOptions {
  readonly client: InferenceClient;
  /** A model with one float32 input, loaded on all of `devices`. */
  readonly model: string;
  readonly devices: readonly DeviceDescriptor[];
  readonly clock: Clock;
  readonly random: Random;
}

/** Requests a device answers; each has other values. */
const requests = 16;
/** Largest difference between two providers, relative to the largest magnitude of the output, in float32. */
const toleranceRelative = 1e-4;
const requestMsMax = 30_000;

interface Answered {
  readonly device: DeviceDescriptor;
  readonly latenciesMs: readonly number[];
  /** Values of every output of every request, in order. */
  readonly answers: readonly (readonly number[])[];
}

/** Never throws: a host that cannot answer itself did not pass, and says why. */
export async function selfCheck(options: SelfCheckOptions): Promise<SelfCheck> {
  const { model, devices } = options;
  const none = { model, requests, providers: [], differenceAbsolute: 0, differenceRelative: 0, toleranceRelative };
  const providers = new Set(devices.map(({ provider }) => provider));
  if (providers.size < 2) {
    const where = devices.map(({ id }) => id).join(', ');
    return {
      ...none,
      passed: false,
      reason: `model '${model}' is on ${where || 'no device'}: one execution provider cannot be compared`,
    };
  }
  try {
    const inputs = await drawInputs(options);
    const answered: Answered[] = [];
    for (const device of devices) answered.push(await ask(options, device, inputs));
    const difference = largestDifference(answered);
    const passed = difference.relative <= toleranceRelative;
    return {
      ...none,
      passed,
      reason: passed ? '' : `answers differ by ${difference.relative} relative; ${toleranceRelative} is allowed`,
      providers: answered.map(providerOf),
      differenceAbsolute: difference.absolute,
      differenceRelative: difference.relative,
    };
  } catch (error) {
    return { ...none, passed: false, reason: messageOf(error) };
  }
}

interface DrawnInput {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

async function drawInputs({ client, model, random }: SelfCheckOptions): Promise<readonly DrawnInput[]> {
  const { inputs } = await client.modelMetadata(model);
  const [input] = inputs;
  if (input === undefined || inputs.length !== 1 || input.datatype !== 'FP32') {
    throw new Error(`model '${model}' has not one float32 input; the check needs such a model`);
  }
  const shape = input.shape.map((size) => (size < 0 ? 1 : size));
  const count = shape.reduce((product, size) => product * size, 1);
  return Array.from({ length: requests }, () => ({
    name: input.name,
    shape,
    data: Float32Array.from({ length: count }, () => random.next()),
  }));
}

async function ask(
  { client, model, clock }: SelfCheckOptions,
  device: DeviceDescriptor,
  inputs: readonly DrawnInput[],
): Promise<Answered> {
  const latenciesMs: number[] = [];
  const answers: number[][] = [];
  for (const { name, shape, data } of inputs) {
    const startedMs = clock.nowMs();
    const answer = await client.infer(
      model,
      { [name]: { shape, data } },
      { timeoutMs: requestMsMax, parameters: { intarsia_device: device.id } },
    );
    latenciesMs.push(clock.nowMs() - startedMs);
    if (answer.receipt?.device !== device.id) {
      throw new Error(`device ${device.id} was asked and ${answer.receipt?.device ?? 'an unknown one'} answered`);
    }
    answers.push(answer.outputs.flatMap((output) => [...output.asFloat32()]));
  }
  return { device, latenciesMs, answers };
}

function largestDifference(answered: readonly Answered[]): { readonly absolute: number; readonly relative: number } {
  let absolute = 0;
  let relative = 0;
  const [reference, ...others] = answered;
  if (reference === undefined) return { absolute, relative };
  for (const other of others) {
    reference.answers.forEach((values, request) => {
      const scale = Math.max(...values.map(Math.abs), Number.MIN_VALUE);
      values.forEach((value, index) => {
        const theirs = other.answers[request]?.[index] ?? Number.NaN;
        const difference = Math.abs(value - theirs);
        // NaN in one of the two is a difference without bound.
        absolute = Number.isNaN(difference) ? Infinity : Math.max(absolute, difference);
        relative = Number.isNaN(difference) ? Infinity : Math.max(relative, difference / scale);
      });
    });
  }
  return { absolute, relative };
}

function providerOf({ device, latenciesMs }: Answered): SelfCheckProvider {
  const sorted = [...latenciesMs].sort((a, b) => a - b);
  return {
    provider: device.provider,
    device: device.id,
    emulated: device.emulated,
    latencyMsP50: sorted[Math.floor(sorted.length / 2)] ?? 0,
  };
}
