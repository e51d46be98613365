/**
 * What a gateway follows promotions with: rules by name, versions from the store's text, and the policy that decides until
 * something is promoted. The actor that follows the pointer is actors/policy-follower.
 */
import { createHash } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { intarsiaError } from '#core/errors.js';
import { metric } from '#core/metric-catalogue.js';
import type { DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { ownPolicy } from '#core/scheduling/promotion.js';
import type { PolicyFollowerOptions } from '#actors/policy-follower/actor.js';
import { dispatchByName } from '#policies/placement/dispatch-by-name.js';
import { dispatchFromFile } from '#policies/placement/dispatch-from-file.js';
import type { PromotedDispatch } from '#policies/placement/dispatch-promoted.js';
import type { Clock } from '#ports/clock.js';
import type { Metrics } from '#ports/metrics.js';
import type { PolicyTools } from '#server/policy-desk.js';

export type Promotion = Omit<PolicyFollowerOptions<DispatchPolicy>, 'host' | 'store' | 'keys' | 'lookMs'>;

export interface PromotionOptions {
  readonly own: DispatchPolicy;
  readonly promoted: PromotedDispatch;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

export function promotionOf({ own, promoted, clock, metrics }: PromotionOptions): Promotion {
  const refusals = metrics.counter(metric('intarsia_policy_refusals_total')).bind();
  const rollbacks = metrics.counter(metric('intarsia_policy_rollbacks_total')).bind();
  const number = metrics.gauge(metric('intarsia_policy_number')).bind();
  // The same rule as base and as policy is one object: what it keeps of the past stays.
  const rules = new Map<string, DispatchPolicy>();
  return {
    ruleOf: (reference) => {
      if (reference === ownPolicy) return own;
      const rule = rules.get(reference) ?? dispatchByName(reference);
      rules.set(reference, rule);
      return rule;
    },
    versionOf: (text, sha256) => {
      const bytes = Buffer.from(text, 'base64');
      const actual = policyTools.sha256(bytes);
      if (actual !== sha256) {
        throw intarsiaError(
          'ARTIFACT_DAMAGED',
          `its ${bytes.byteLength} bytes have the digest ${actual}; its record names ${sha256}`,
          {},
        );
      }
      return dispatchFromFile(bytes, { clockMs: () => performance.now() });
    },
    follow: (pointer, policy, base) => {
      const nowMs = clock.nowMs();
      promoted.follow({ pointer, policy, base, nowMs, wallOffsetMs: clock.wallMs() - nowMs });
      number.set(pointer.number);
    },
    look: () => ({ sighting: promoted.sighting(), verdict: promoted.verdict }),
    onRefused: () => refusals.add(1),
    onTakenBack: () => rollbacks.add(1),
  };
}

export const policyTools: PolicyTools = {
  sha256: (bytes) => createHash('sha256').update(bytes).digest('hex'),
  base64: (bytes) => Buffer.from(bytes).toString('base64'),
  checkRule: (name) => void dispatchByName(name),
};
