/** Batching policies by the names of the command line: `triton`, `delay:5`, `aimd`, `proteus`, `deadline-cap+shed`, … */
import { intarsiaError } from '#core/errors.js';
import { aimdBatching } from './batching-aimd.js';
import { deadlineCapBatching } from './batching-deadline-cap.js';
import { delayBatching } from './batching-delay.js';
import type { BatchingPolicy } from './batching-policy.js';
import { proteusBatching } from './batching-proteus.js';
import { smdpBatching } from './batching-smdp.js';
import { tritonBatching } from './batching-triton.js';

/** Without what may follow: `:number` and `+shed`. */
export const batchingNames = ['triton', 'greedy', 'delay', 'aimd', 'proteus', 'deadline-cap', 'smdp'] as const;

const shedSuffix = '+shed';

/**
 * A policy of one's own for each device. `name:number` gives its one number (delay: ms; smdp: weight of a run), `+shed` has
 * it refuse requests that would be late even if they ran at once. `greedy` is another name of `triton`.
 * @throws CONFIG_INVALID for a name that is not known.
 */
export function batchingByName(words: string): BatchingPolicy {
  const sheds = words.endsWith(shedSuffix);
  const [name = '', text] = (sheds ? words.slice(0, -shedSuffix.length) : words).split(':', 2);
  const value = text === undefined ? undefined : text === '' ? Number.NaN : Number(text);
  const policy = plainPolicy(name, value);
  if (policy === undefined || (value !== undefined && name !== 'delay' && name !== 'smdp')) {
    throw intarsiaError(
      'CONFIG_INVALID',
      `batching policy ${JSON.stringify(words)} is not known; known are ${batchingNames.join(', ')}, delay:MS, smdp:WEIGHT, each also with ${shedSuffix}`,
    );
  }
  return sheds ? { ...policy, name: `${policy.name}${shedSuffix}`, sheds } : policy;
}

function plainPolicy(name: string, value: number | undefined): BatchingPolicy | undefined {
  switch (name) {
    case 'triton':
    case 'greedy':
      return tritonBatching();
    case 'delay':
      return delayBatching(value === undefined ? {} : { delayMs: value });
    case 'aimd':
      return aimdBatching();
    case 'proteus':
      return proteusBatching();
    case 'deadline-cap':
      return deadlineCapBatching();
    case 'smdp':
      return smdpBatching(value === undefined ? {} : { runWeight: value });
    default:
      return undefined;
  }
}
