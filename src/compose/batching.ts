/**
 * How this host's devices form batches: the rule or the learned policy that `--batching` names, until a policy is promoted that
 * brings a file of its own. A file that cannot be trusted is said so in the log, and a rule serves.
 */
import { readFile } from 'node:fs/promises';
import { messageOf } from '#core/errors.js';
import { batchingByName } from '#policies/batching/batching-by-name.js';
import { batchingFromFile } from '#policies/batching/batching-from-file.js';
import type { BatchingPolicy } from '#policies/batching/batching-policy.js';
import { PromotedBatching, type FollowedBatching } from '#policies/batching/batching-promoted.js';
import type { Log } from '#ports/log.js';

export interface HostBatching {
  /** A policy of its own for each device. */
  make(): BatchingPolicy;
  /** What was promoted, to every device that has one. */
  follow(followed: FollowedBatching): void;
}

/** The rule that serves when a learned policy's file is refused. */
const defaultBatching = 'deadline-cap+shed';

/** @throws CONFIG_INVALID for a rule that there is none of. */
export async function hostBatching(name: string, log: Log): Promise<HostBatching> {
  const makeOwn = await ownBatching(name, log);
  const made: PromotedBatching[] = [];
  return {
    make: () => {
      const policy = new PromotedBatching(makeOwn());
      made.push(policy);
      return policy;
    },
    follow: (followed) => {
      for (const policy of made) policy.follow(followed);
    },
  };
}

async function ownBatching(name: string, log: Log): Promise<() => BatchingPolicy> {
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
