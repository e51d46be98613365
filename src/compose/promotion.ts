/**
 * What a gateway follows promotions with: rules by name, versions from the store's text, and the policy that decides until
 * something is promoted. The actor that follows the pointer is actors/policy-follower.
 */
import { createHash } from 'node:crypto';
import { intarsiaError } from '#core/errors.js';
import { metric } from '#core/metric-catalogue.js';
import type { DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { ownPolicy } from '#core/scheduling/promotion.js';
import type { PolicyFollowerOptions } from '#actors/policy-follower/actor.js';
import { batchingByName } from '#policies/batching/batching-by-name.js';
import { batchingFromFile } from '#policies/batching/batching-from-file.js';
import type { BatchingPolicy } from '#policies/batching/batching-policy.js';
import { dispatchByName } from '#policies/placement/dispatch-by-name.js';
import { dispatchFromFile } from '#policies/placement/dispatch-from-file.js';
import type { PromotedDispatch } from '#policies/placement/dispatch-promoted.js';
import type { Clock } from '#ports/clock.js';
import type { Metrics } from '#ports/metrics.js';
import type { PolicyTools } from '#server/policy-desk.js';
import type { HostBatching } from './batching.js';

/** What one reference stands for. */
export interface HostPolicy {
  readonly dispatch: DispatchPolicy;
  /** Makes a policy for a device; undefined: batches are formed as the host was started. */
  readonly batching?: () => BatchingPolicy;
}

export type Promotion = Omit<PolicyFollowerOptions<HostPolicy>, 'host' | 'store' | 'keys' | 'lookMs'>;

export interface PromotionOptions {
  readonly own: DispatchPolicy;
  readonly promoted: PromotedDispatch;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly batching: Pick<HostBatching, 'follow'>;
  /** Measures choices, ms; undefined where that has no part in time. */
  readonly choiceClockMs?: (() => number) | undefined;
}

export function promotionOf(options: PromotionOptions): Promotion {
  const { own, promoted, clock, metrics, batching } = options;
  const choiceClock = options.choiceClockMs === undefined ? {} : { clockMs: options.choiceClockMs };
  const refusals = metrics.counter(metric('intarsia_policy_refusals_total')).bind();
  const rollbacks = metrics.counter(metric('intarsia_policy_rollbacks_total')).bind();
  const number = metrics.gauge(metric('intarsia_policy_number')).bind();
  // The same rule as base and as policy is one object: what it keeps of the past stays.
  const rules = new Map<string, HostPolicy>([[ownPolicy, { dispatch: own }]]);
  return {
    ruleOf: (reference) => {
      const rule = rules.get(reference) ?? { dispatch: dispatchByName(reference) };
      rules.set(reference, rule);
      return rule;
    },
    versionOf: (files) => {
      const dispatch = dispatchFromFile(wholeFile(files), choiceClock);
      return files.batching === undefined
        ? { dispatch }
        : { dispatch, batching: batchingFromFile(wholeFile(files.batching)) };
    },
    follow: (pointer, policy, base) => {
      const nowMs = clock.nowMs();
      const wallOffsetMs = clock.wallMs() - nowMs;
      promoted.follow({ pointer, policy: policy?.dispatch, base: base.dispatch, nowMs, wallOffsetMs });
      // Where the policy cannot be used, its base decides about batches as it does about replicas.
      batching.follow({ pointer, policy: (policy ?? base).batching, base: base.batching, wallOffsetMs });
      number.set(pointer.number);
    },
    look: () => ({ sighting: promoted.sighting(), verdict: promoted.verdict }),
    onRefused: () => refusals.add(1),
    onTakenBack: () => rollbacks.add(1),
  };
}

/** @throws ARTIFACT_DAMAGED for other bytes than the record names. */
function wholeFile({ artifact, sha256 }: { readonly artifact: string; readonly sha256: string }): Uint8Array {
  const bytes = Buffer.from(artifact, 'base64');
  const actual = policyTools.sha256(bytes);
  if (actual !== sha256) {
    throw intarsiaError(
      'ARTIFACT_DAMAGED',
      `its ${bytes.byteLength} bytes have the digest ${actual}; its record names ${sha256}`,
      {},
    );
  }
  return bytes;
}

export const policyTools: PolicyTools = {
  sha256: (bytes) => createHash('sha256').update(bytes).digest('hex'),
  base64: (bytes) => Buffer.from(bytes).toString('base64'),
  checkRule: (name) => void dispatchByName(name),
  checkBatchingRule: (name) => void batchingByName(name),
};
