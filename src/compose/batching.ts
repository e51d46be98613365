/**
 * How this host's devices form batches: the rule or the learned policy that `--batching` names. A file that cannot be trusted
 * is said so in the log, and a rule serves.
 */
import { readFile } from 'node:fs/promises';
import { messageOf } from '#core/errors.js';
import { batchingByName } from '#policies/batching/batching-by-name.js';
import { batchingFromFile } from '#policies/batching/batching-from-file.js';
import type { BatchingPolicy } from '#policies/batching/batching-policy.js';
import type { Log } from '#ports/log.js';

/** The rule that serves when a learned policy's file is refused. */
const defaultBatching = 'deadline-cap+shed';

/** Makes a policy of its own for each device. @throws INVALID_ARGUMENT for a rule that there is none of. */
export async function hostBatching(name: string, log: Log): Promise<() => BatchingPolicy> {
  if (!name.endsWith('.onnx')) {
    batchingByName(name);
    return () => batchingByName(name);
  }
  try {
    const make = batchingFromFile(await readFile(name));
    log.info('batches are formed by a learned policy', { policy: make().name });
    return make;
  } catch (error) {
    log.error('the learned batching policy is not used; a rule serves', {
      file: name,
      rule: defaultBatching,
      error: messageOf(error),
    });
    return () => batchingByName(defaultBatching);
  }
}
