/** Whether, and from how many items on, requests of a model are spread over several devices: its configuration says so. */
import { intarsiaError } from '../errors.js';
import type { ModelConfig } from '../model-config.js';

export const spreadStrategies = ['pipeline', 'data', 'auto'] as const;
/**
 * `pipeline`: each request goes to one replica, whole or in stages. `data`: requests of `itemsMin` items or more are spread
 * over all replicas. `auto`: they are where that is sooner by the speeds that were measured, or they have more items than a
 * batch may hold.
 */
export type SpreadStrategy = (typeof spreadStrategies)[number];

export interface SpreadRule {
  readonly strategy: Exclude<SpreadStrategy, 'pipeline'>;
  /** Items from which on a request is spread. */
  readonly itemsMin: number;
  /** Items that one request may have. */
  readonly itemsMax: number;
}

const parameter = { strategy: 'intarsia_strategy', min: 'intarsia_data_min_items', max: 'intarsia_data_max_items' };
const itemsMinDefault = 8;
const itemsMaxDefault = 1024;
const itemsBound = 65_536;

/** Why no request of a model can be spread; empty when they can. */
export function whyNotSpread({ maxBatchSize, sequenceBatching }: ModelConfig): string {
  if (sequenceBatching !== undefined) return 'requests of sequences stay on one device';
  return maxBatchSize < 1 ? 'it has no max_batch_size above 0: items cannot be told apart' : '';
}

/**
 * Undefined: never. @param deployed What a deployment says in place of the configuration.
 * @throws MODEL_INVALID for another word, a number out of range, a model without batches or one that keeps sequences.
 */
export function spreadRuleOf(config: ModelConfig, deployed?: SpreadStrategy): SpreadRule | undefined {
  const { parameters, maxBatchSize, sequenceBatching, name } = config;
  // A model that a deployment cannot have spread is served all the same.
  if (deployed !== undefined && whyNotSpread(config) !== '') return undefined;
  const text = deployed ?? parameters.get(parameter.strategy) ?? 'pipeline';
  const strategy = spreadStrategies.find((one) => one === text);
  if (strategy === undefined) {
    throw invalid(name, `parameter ${parameter.strategy} is '${text}'; it may be ${spreadStrategies.join(', ')}`);
  }
  if (strategy === 'pipeline') return undefined;
  if (maxBatchSize < 1) {
    throw invalid(
      name,
      `${parameter.strategy} is '${strategy}', which needs max_batch_size above 0: items cannot be told apart`,
    );
  }
  if (sequenceBatching !== undefined) {
    throw invalid(name, `${parameter.strategy} is '${strategy}': requests of sequences stay on one device`);
  }
  const number = (key: string, byDefault: number, least: number): number => {
    const value = parameters.get(key);
    if (value === undefined) return byDefault;
    const read = Number(value);
    if (Number.isInteger(read) && read >= least && read <= itemsBound) return read;
    throw invalid(
      name,
      `parameter ${key} is '${value}'; it may be a whole number of items from ${least} to ${itemsBound}`,
    );
  };
  const itemsMin = number(parameter.min, itemsMinDefault, 2);
  return { strategy, itemsMin, itemsMax: number(parameter.max, Math.max(itemsMaxDefault, maxBatchSize), maxBatchSize) };
}

function invalid(model: string, message: string): Error {
  return intarsiaError('MODEL_INVALID', `model '${model}': ${message}`, { model });
}
