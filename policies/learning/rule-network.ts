/**
 * A network that decides like a rule before it has learned anything: cheapest feasible, as a sum of smooth steps. Imitation
 * by gradients loses what a rule has exactly, the comparison of costs among those that are in time; here it is built in, and
 * learning begins from it instead of from something a little worse.
 *
 * Each hidden unit is a question with an answer of -1 to 1: is more than a fifth of the target left, is this the row of
 * refusing, how dear is it. The last layer weighs the answers; its weights are what the cross-entropy method searches.
 * A question that is asked of one class only gives -1 for all others: alike for all rows of a decision, it decides nothing.
 */
import { intarsiaError } from '#core/errors.js';
import { featureCount, featuresOf, planFeatureCount, planSchema } from '#core/scheduling/features.js';
import type { Layer } from '#core/scheduling/network.js';

export interface Unit {
  /** Weights by feature. */
  readonly of: Readonly<Record<string, number>>;
  readonly bias?: number;
  /** Weight of its answer in the rule; 0 for what the rule does not ask. */
  readonly weight: number;
}

/** So much steeper than 1 are questions whether something is above a value. */
const steep = 14;
/** Beyond any value that features have: closes a question to other classes, or to rows of candidates. */
const closed = 70;

/** Whether slack is above `level`, for one class or for all. */
function slackAbove(level: number, weight: number, sloClass?: string): Unit {
  if (sloClass === undefined) return { of: { slack: steep }, bias: -steep * level, weight };
  return { of: { slack: steep, [`class_${sloClass}`]: closed }, bias: -steep * level - closed, weight };
}

/** The rule with its share φ of the target, 0 to 1. */
function unitsOf(share: number): readonly Unit[] {
  const spare = 1 - share;
  return [
    // What is in time counts more than any cost; of what is late, the soonest.
    slackAbove(spare, 8),
    ...[-0.3, -0.8, -1.5, -2.4].map((level) => ({ of: { slack: 3 }, bias: -3 * level, weight: 6 })),
    // Costs are logarithms of 1 + cost: three shapes, of which any curve between can be put together.
    { of: { cost: 0.35 }, weight: -4 },
    { of: { cost: 1.2 }, weight: 0 },
    { of: { cost: 1.5 }, bias: -3, weight: -1 },
    // Refusing: worst while anything is in time, best where nothing is.
    { of: { stages: -60 }, bias: 3.5, weight: -12 },
    { of: { stages: 8 * closed, slack: 25 }, weight: -16 },
    ...[-0.4, -1, -2].map((level) => ({ of: { stages: 8 * closed, slack: 10 }, bias: -10 * level, weight: 0 })),
    { of: { stages: 8 * closed, load_1s: 4 }, bias: -4, weight: 0 },
    // What the rule does not ask.
    ...['interactive', 'standard', 'batch'].flatMap((name) => [
      slackAbove(0.05, 0, name),
      slackAbove(0.3, 0, name),
      slackAbove(0.6, 0, name),
    ]),
    // Patient classes have slack to the last moment: how long a queue they may build is asked finer.
    { of: { slack: 20, class_standard: closed }, bias: -closed - 20 * 0.85, weight: 0 },
    { of: { slack: 20, class_batch: closed }, bias: -closed - 20 * 0.85, weight: 0 },
    { of: { slack: 60, class_batch: closed }, bias: -closed - 60 * 0.96, weight: 0 },
    { of: { slack: 1 }, weight: 0 },
    { of: { slack: 1, class_interactive: closed }, bias: -closed, weight: 0 },
    { of: { service: 1 }, weight: 0 },
    { of: { ahead: 1 }, weight: 0 },
    { of: { running: 2 }, weight: 0 },
    { of: { work: 1 }, weight: 0 },
    { of: { queue: 1 }, weight: 0 },
    { of: { marginal: 1 }, weight: 0 },
    { of: { marginal: 4 }, bias: -1.5, weight: 0 },
    { of: { room: 2 }, weight: 0 },
    { of: { room: 12 }, bias: -1, weight: 0 },
    { of: { work: 8 }, bias: -0.5, weight: 0 },
    { of: { energy: 0.5 }, weight: 0 },
    { of: { price_rank: 1 }, weight: 0 },
    { of: { spread: 4 }, weight: 0 },
    // Dear devices under load, and dear ones for each class.
    { of: { price_rank: 2, load_1s: -2 }, bias: 1, weight: 0 },
    { of: { price_rank: 4, load_30s: -4 }, weight: 0 },
    { of: { cost: 1, load_30s: -2 }, weight: 0 },
    { of: { slack: 4, load_30s: -4 }, bias: 2, weight: 0 },
    { of: { cost: 1, class_interactive: closed }, bias: -closed - 1, weight: 0 },
    { of: { cost: 1, class_batch: closed }, bias: -closed - 1, weight: 0 },
    { of: { work: 1, class_batch: closed }, bias: -closed - 1, weight: 0 },
    // Long runs on dear or busy devices: what others could have done there meanwhile.
    { of: { service: 6, price_rank: 3, load_30s: 3 }, bias: -5, weight: 0 },
    { of: { service: 6, work: 3 }, bias: -3, weight: 0 },
    { of: { work: 2, load_1s: 4 }, bias: -5, weight: 0 },
    { of: { marginal: 2, price_rank: 2, load_30s: 2 }, bias: -4, weight: 0 },
  ];
}

/** Questions about the fluid programme's turns; `weight` says how much whose turn it is counts. */
function planUnits(weight: number): readonly Unit[] {
  return [
    { of: { plan_turn: 1.5 }, weight },
    { of: { plan_turn: 6 }, weight: 0 },
    { of: { plan_turn: 6 }, bias: 5, weight: 0 },
    { of: { plan_share: 3 }, weight: 0 },
    { of: { plan_busy: 4 }, bias: -2, weight: 0 },
    ...['interactive', 'standard', 'batch'].map((name) => ({
      of: { plan_turn: 1.5, [`class_${name}`]: closed },
      bias: -closed,
      weight: 0,
    })),
    { of: { plan_turn: 1.5, load_30s: 4 }, bias: -3, weight: 0 },
    { of: { plan_turn: 1.5, slack: 3 }, bias: -1.5, weight: 0 },
    { of: { plan_busy: 2, service: 4 }, bias: -2, weight: 0 },
    { of: { plan_turn: 1.5, work: 2 }, bias: -1, weight: 0 },
  ];
}

const allNames = featuresOf(planSchema);

/** Layers that decide like `cheapest-feasible:share`. */
export function ruleLayers(share: number): Layer[] {
  return layersOfUnits([...unitsOf(share), ...planUnits(0)], allNames, planFeatureCount);
}

/** How much whose turn it is counts at first, against 16 for being in time and up to 10 for costs. */
const turnWeight = 6.6;

/**
 * A network of schema `dispatch-1` with one hidden layer as one of `dispatch-2`: the same questions, and those about the plan,
 * of which whose turn it is counts from the beginning. One of `dispatch-2` stays as it is.
 * @throws INVALID_ARGUMENT for another shape.
 */
export function withPlanUnits(layers: readonly Layer[]): Layer[] {
  const [first, last] = layers;
  if (first?.in === planFeatureCount) return [...layers];
  if (first === undefined || last === undefined || layers.length !== 2 || first.in !== featureCount || last.out !== 1) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `training begins with networks of one hidden layer and one score over ${featureCount} or ${planFeatureCount} features; this has layers of ${layers.map((layer) => `${layer.in} to ${layer.out}`).join(', ')}`,
    );
  }
  const [own, score] = layersOfUnits(planUnits(turnWeight), allNames, planFeatureCount) as [Layer, Layer];
  const width = first.out + own.out;
  const weights = new Float32Array(planFeatureCount * width);
  for (let feature = 0; feature < planFeatureCount; feature += 1) {
    if (feature < featureCount) {
      weights.set(first.weights.subarray(feature * first.out, (feature + 1) * first.out), feature * width);
    }
    weights.set(own.weights.subarray(feature * own.out, (feature + 1) * own.out), feature * width + first.out);
  }
  return [
    { in: planFeatureCount, out: width, weights, bias: Float32Array.from([...first.bias, ...own.bias]) },
    { in: width, out: 1, weights: Float32Array.from([...last.weights, ...score.weights]), bias: last.bias },
  ];
}

/** One hidden layer of the units, and one score. */
export function layersOfUnits(units: readonly Unit[], names: readonly string[], inputs: number): Layer[] {
  const width = units.length;
  const weights = new Float32Array(inputs * width);
  for (const [unit, { of }] of units.entries()) {
    for (const [name, weight] of Object.entries(of)) {
      const feature = names.indexOf(name);
      if (feature < 0) throw intarsiaError('INTERNAL', `there is no feature '${name}'`, { name });
      weights[feature * width + unit] = weight;
    }
  }
  return [
    { in: inputs, out: width, weights, bias: Float32Array.from(units, ({ bias = 0 }) => bias) },
    { in: width, out: 1, weights: Float32Array.from(units, ({ weight }) => weight), bias: new Float32Array(1) },
  ];
}
