/**
 * Who is meant by a name: a dispatch rule, a learned policy's file, one that comes with the product, or a module of one's own.
 * `name@batching` also says how devices form batches: by a rule, or by a learned policy's file. Without it a policy that comes
 * with the product brings the batching policy it was trained with, where there is one.
 */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { IntarsiaError, intarsiaError, messageOf } from '#core/errors.js';
import type { DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { readPolicy, type PolicyArtifact } from '#core/scheduling/policy-file.js';
import { batchingByName } from '#policies/batching/batching-by-name.js';
import { batchingFromFile } from '#policies/batching/batching-from-file.js';
import { dispatchByName } from '#policies/placement/dispatch-by-name.js';
import { dispatchFromFile } from '#policies/placement/dispatch-from-file.js';
import type { Contender } from '#policies/learning/evaluate.js';
import type { Batcher, Player } from '#policies/learning/environment.js';
import { packageRoot } from '../package-root.js';
import { isOwnPolicy, loadOwnPolicy } from './fleet-tools.js';

/** The rule that hosts fall back to unless a policy names another. */
export const defaultRule = 'cheapest-feasible';

export interface ReadContender extends Contender {
  /** The rule that decides when this one must not. */
  readonly fallback: string;
}

/**
 * @throws CONFIG_INVALID (no such rule of dispatch or batching), INVALID_ARGUMENT (module), NOT_FOUND (file), MODEL_INVALID (policy file).
 */
export async function readContender(text: string, batching: string): Promise<ReadContender> {
  const [, name = text, own] = /^(.+)@([a-z-]+(?::[0-9.]+)?(?:\+shed)?|.+\.onnx)$/u.exec(text) ?? [];
  const { player, fallback } = await decider(name);
  const batcher = await batcherOf(own ?? ownBatching(name) ?? batching);
  return { name: text, isRule: false, fallback, player: { ...player, batching: batcher } };
}

/** Who plays a run of a simulation: makes a policy for each run, and says how devices form batches. */
export interface SimulatedPolicy {
  readonly make: () => DispatchPolicy;
  readonly batching: Batcher;
}

/** The same for a name as `evaluate` takes it. @throws as `readContender`. */
export async function readSimulated(text: string, batching: string): Promise<SimulatedPolicy> {
  const { player } = await readContender(text, batching);
  return { make: await makerOf(player), batching: player.batching ?? batching };
}

/** Makes the policy of a name, a new one for each run. @throws as `readContender`. */
export async function policyMaker(name: string): Promise<() => DispatchPolicy> {
  return makerOf((await decider(name)).player);
}

async function makerOf(player: Player): Promise<() => DispatchPolicy> {
  switch (player.kind) {
    case 'module':
      return loadOwnPolicy(player.path);
    case 'policy':
      return () => dispatchFromFile(player.bytes);
    case 'rule':
      return () => dispatchByName(player.name);
    case 'network':
      throw intarsiaError('UNIMPLEMENTED', 'a bare network has no name to be called by');
  }
}

/** The batching policy that a policy which comes with the product was trained together with. */
function ownBatching(name: string): string | undefined {
  const path = policyPath(name);
  if (path === undefined || path === name) return undefined;
  const beside = join(dirname(path), 'batching.onnx');
  return existsSync(beside) ? beside : undefined;
}

/** A rule that forms batches, or the file of a learned policy that does. */
async function batcherOf(name: string): Promise<Batcher> {
  if (!name.endsWith('.onnx')) {
    batchingByName(name);
    return name;
  }
  const bytes = await policyBytes(name);
  naming(name, () => batchingFromFile(bytes));
  return { kind: 'policy', bytes };
}

async function decider(name: string): Promise<{ readonly player: Player; readonly fallback: string }> {
  if (isOwnPolicy(name)) {
    const path = resolve(name);
    // Loaded here, too, so that a mistake in it is found before anything runs.
    (await loadOwnPolicy(path))();
    return { player: { kind: 'module', path }, fallback: defaultRule };
  }
  const path = policyPath(name);
  if (path === undefined) {
    dispatchByName(name);
    return { player: { kind: 'rule', name }, fallback: name };
  }
  const bytes = await policyBytes(path);
  naming(path, () => dispatchFromFile(bytes));
  return { player: { kind: 'policy', bytes }, fallback: readPolicy(bytes).fallback };
}

/** A learned policy's file. @throws NOT_FOUND, MODEL_INVALID, naming the file. */
export async function readPolicyFile(path: string): Promise<PolicyArtifact> {
  const bytes = await policyBytes(path);
  return naming(path, () => readPolicy(bytes));
}

async function policyBytes(path: string): Promise<Uint8Array> {
  try {
    return Uint8Array.from(await readFile(path));
  } catch (error) {
    throw intarsiaError('NOT_FOUND', `policy ${path} cannot be read: ${messageOf(error)}`, { path }, error);
  }
}

/** Has what a file is refused for begin with its path: several may have been given. */
function naming<T>(path: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof IntarsiaError)) throw error;
    throw intarsiaError(error.code, `policy ${path}: ${error.message}`, { path }, error);
  }
}

/**
 * Files of a learned policy's networks: dispatch, and batching where it has one beside it.
 * @throws INVALID_ARGUMENT for a rule's name.
 */
export function filesOfPolicy(name: string): readonly string[] {
  const path = policyPath(name);
  if (path === undefined) {
    throw intarsiaError('INVALID_ARGUMENT', `there is no learned policy '${name}' to begin with`, { name });
  }
  const beside = join(dirname(path), 'batching.onnx');
  return existsSync(beside) ? [path, beside] : [path];
}

/** The file, or that of a policy that comes with the product; undefined for what can only be a rule. */
function policyPath(name: string): string | undefined {
  if (name.endsWith('.onnx')) return name;
  if (!/^[A-Za-z0-9._-]+$/u.test(name)) return undefined;
  const folder = join(packageRoot, 'policies/checkpoints');
  return [join(folder, `${name}.onnx`), join(folder, name, 'policy.onnx')].find((path) => existsSync(path));
}
