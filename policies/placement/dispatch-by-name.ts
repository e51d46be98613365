/**
 * Dispatch rules by the names that options and reports use: `cheapest-feasible`, `cheapest-feasible:0.8`, `sed+shed`.
 * After the colon comes the rule's number; `+shed` refuses what would be late anyway where a class allows it, `+serve` does
 * not. Without either, the rules that weigh cost against time shed and the others serve.
 */
import { intarsiaError } from '#core/errors.js';
import type { DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import type { RatePlan } from '#core/scheduling/rate-plan.js';
import { cheapestByRisk } from './dispatch-cf-risk.js';
import { cheapest } from './dispatch-cheap.js';
import { cheapestFeasible } from './dispatch-cheapest-feasible.js';
import { joinShortestQueue } from './dispatch-jsq.js';
import { leastHeadroom } from './dispatch-least-headroom.js';
import { leastWorkLeft } from './dispatch-lwl.js';
import { maxWeight } from './dispatch-max-weight.js';
import { followingPlan, rateMatching } from './dispatch-milp-rate.js';
import { powerOfTwoQueues } from './dispatch-p2c-jsq.js';
import { powerOfTwoDelays } from './dispatch-p2c-sed.js';
import { uniformRandom } from './dispatch-random.js';
import { roundRobin } from './dispatch-round-robin.js';
import { shortestExpectedDelay } from './dispatch-sed.js';
import { shedding } from './dispatch-shedding.js';
import { weightedRoundRobin } from './dispatch-weighted-round-robin.js';

interface Rule {
  make(number: number | undefined, plan: RatePlan | undefined): DispatchPolicy;
  /** Bounds of its number, both excluded but for `most`; absent where it takes none. */
  readonly above?: number;
  readonly most?: number;
  readonly sheds: boolean;
}

const rules: Readonly<Record<string, Rule>> = {
  rand: { make: uniformRandom, sheds: false },
  rr: { make: roundRobin, sheds: false },
  wrr: { make: weightedRoundRobin, sheds: false },
  jsq: { make: joinShortestQueue, sheds: false },
  'p2c-jsq': { make: powerOfTwoQueues, sheds: false },
  'p2c-sed': { make: powerOfTwoDelays, sheds: false },
  lwl: { make: leastWorkLeft, sheds: false },
  sed: { make: shortestExpectedDelay, sheds: false },
  'max-weight': { make: maxWeight, sheds: false },
  cheap: { make: cheapest, sheds: false },
  'least-headroom': { make: leastHeadroom, sheds: false },
  'milp-rate': {
    make: (busyShare, plan) => (plan === undefined ? rateMatching(busyShare) : followingPlan(plan)),
    above: 0,
    most: 1,
    sheds: false,
  },
  'cheapest-feasible': {
    make: (share) => cheapestFeasible(share === undefined ? {} : { share }),
    above: 0,
    most: 2,
    sheds: true,
  },
  'cf-risk': {
    make: (lateShare) => cheapestByRisk(lateShare === undefined ? {} : { lateShare }),
    above: 0,
    most: 0.5,
    sheds: true,
  },
};

export const dispatchRuleNames: readonly string[] = Object.keys(rules);

/**
 * @param plan Whose turns rate matching follows; whoever gives it tells it of requests and choices. Absent: it keeps one of its own.
 * @throws CONFIG_INVALID for a name, a number or an ending that there is none of.
 */
export function dispatchByName(text: string, plan?: RatePlan): DispatchPolicy {
  const [, name = '', number, ending] = /^([a-z0-9-]+)(?::([0-9.]+))?(?:\+(shed|serve))?$/u.exec(text) ?? [];
  const rule = Object.hasOwn(rules, name) ? rules[name] : undefined;
  if (rule === undefined) {
    throw intarsiaError(
      'CONFIG_INVALID',
      `there is no dispatch rule '${text.slice(0, 80)}'; there are ${dispatchRuleNames.join(', ')}, with '+shed' or '+serve' behind`,
    );
  }
  const value = number === undefined ? undefined : Number(number);
  if (value !== undefined) {
    const { above, most } = rule;
    if (above === undefined || most === undefined) {
      throw intarsiaError('CONFIG_INVALID', `dispatch rule '${name}' takes no number; it was given ${number ?? ''}`);
    }
    if (!(value > above && value <= most)) {
      throw intarsiaError(
        'CONFIG_INVALID',
        `the number of dispatch rule '${name}' must be above ${above} and at most ${most}; it is ${number ?? ''}`,
      );
    }
  }
  const policy = rule.make(value, plan);
  return (ending === undefined ? rule.sheds : ending === 'shed') ? shedding(policy) : policy;
}
