import { beforeAll, describe, expect, it } from 'vitest';
import { loadTensorflow, type Tensorflow } from '#adapters/tfjs/tensorflow.js';
import { RandomStream } from '#core/random.js';
import { cemDefaults } from '#policies/learning/cem.js';
import { curvesPage, curvesSvg } from '#policies/learning/curves.js';
import { rolloutsHere } from '#policies/learning/environment.js';
import { readPlan } from '#policies/learning/plan-file.js';
import { firstState, trainStep, type TrainingTools } from '#policies/learning/train.js';
import { packState, unpackState } from '#policies/learning/training-state.js';
import { quickPlan, shareDone, type TrainingPlan, type TrainingState } from '#policies/learning/training-plan.js';
import { featuresOfServers, threeServers, type ThreeServers } from './three-servers.js';

const plan: TrainingPlan = {
  ...quickPlan,
  seed: 11,
  ruleShare: 0,
  hidden: [8],
  rules: ['round-robin', 'shortest'],
  imitation: { ...quickPlan.imitation, episodes: 4, requests: 600, corrections: 1, epochs: 15, learningRate: 0.01 },
  search: {
    ...cemDefaults,
    iterations: 3,
    population: 12,
    scenarios: 3,
    requests: 400,
    seconds: 0,
    deviationStart: 0.5,
    worseWeight: 0,
    missWeight: 0,
  },
  optimisation: {
    ...quickPlan.optimisation,
    ...{
      iterations: 2,
      sequences: 2,
      plays: 4,
      decisionsMax: 1_000,
      requestsFirst: 100,
      requestsLast: 200,
      halfLifeMs: 200,
    },
  },
  validation: { scenarios: 3, requests: 1_000, seconds: 0, every: 2 },
};

/** The same with little to do. */
const tiny: TrainingPlan = {
  ...plan,
  imitation: { ...plan.imitation, episodes: 2, requests: 300, epochs: 2 },
  search: { ...plan.search, population: 4, requests: 100 },
  validation: { ...plan.validation, requests: 200 },
};

let tf: Tensorflow;
beforeAll(async () => {
  ({ tf } = await loadTensorflow('cpu'));
});

function tools(plan: TrainingPlan): TrainingTools<ThreeServers> {
  const random = new RandomStream(plan.seed);
  return {
    tf,
    random,
    plan,
    world: {
      featureCount: featuresOfServers,
      classes: threeServers.classes,
      rollouts: rolloutsHere(threeServers),
      scenario: (name, progress, requests) => ({
        seed: random.stream(name).below(1e9),
        requests,
        load: 0.5 + 0.3 * progress,
      }),
      objective: ({ cost }) => cost.reduce((sum, value) => sum + value, 0) / cost.length,
      missWeights: [1, 1],
      allowedMisses: [0.01, 0.02],
    },
  };
}

async function run(state: TrainingState, steps = Infinity, wanted = tiny): Promise<TrainingState> {
  const own = tools(wanted);
  let now = state;
  for (let step = 0; step < steps && now.stage !== 'done'; step += 1) now = await trainStep(now, own);
  return now;
}

describe('a training run', () => {
  it('goes from rules over imitation and search to optimisation, and ends as good as the best rule', async () => {
    const end = await run(firstState(), Infinity, plan);
    expect(end.curves.map(({ stage, step }) => `${stage} ${step}`)).toEqual([
      'rules 0',
      'imitation 0',
      'imitation 1',
      'search 0',
      'search 1',
      'search 2',
      'optimisation 0',
      'optimisation 1',
    ]);
    expect(end.teacher).toBe('shortest');
    expect(end.best!.gain).toBeLessThan(0.1);
    expect(end.ranges!.least).toHaveLength(featuresOfServers);
    expect(end.ranges!.greatest[3]).toBe(1);
  });

  it('continued from any saved step gives the same bytes as never having stopped', async () => {
    const straight = packState(await run(firstState()));
    for (const killedAfter of [1, 2, 4, 7]) {
      const saved = packState(await run(firstState(), killedAfter));
      expect(packState(await run(unpackState(saved, 'checkpoint')))).toBe(straight);
    }
  });

  it('a state that is damaged or of another format is refused', () => {
    expect(() => unpackState('{"format":2,', 'checkpoint.json')).toThrow(/checkpoint.json is no training state: /);
    expect(() => unpackState('{"format":9,"state":{"stage":"rules"}}', 'x')).toThrow(/no training state of format 3/);
  });

  it('the share done grows from 0 to 1', async () => {
    const own = tools(tiny);
    let state = firstState();
    const shares = [shareDone(tiny, state)];
    while (state.stage !== 'done') {
      state = await trainStep(state, own);
      shares.push(shareDone(tiny, state));
    }
    expect(shares[0]).toBe(0);
    expect(shares.at(-1)).toBeCloseTo(1, 9);
    for (const [index, share] of shares.slice(1).entries()) expect(share).toBeGreaterThan(shares[index]!);
  });
});

describe('the plan of a run', () => {
  it('takes over what a file names and refuses what is unknown or no number', () => {
    const changed = readPlan(plan, { hidden: [16, 16], search: { iterations: 5 } }, 'plan.yaml');
    expect(changed).toEqual({ ...plan, hidden: [16, 16], search: { ...plan.search, iterations: 5 } });
    expect(readPlan(plan, null, 'plan.yaml')).toBe(plan);
    expect(() => readPlan(plan, { serach: {} }, 'plan.yaml')).toThrow(
      /plan.yaml: serach must be one of seed, ruleShare/,
    );
    expect(() => readPlan(plan, { search: { iterations: 'many' } }, 'plan.yaml')).toThrow(
      /search.iterations must be a number of 0 to 1e9; it is "many"/,
    );
    expect(() => readPlan(plan, { hidden: 8 }, 'plan.yaml')).toThrow(/hidden must be a list of numbers/);
    expect(() => readPlan(plan, { planShare: 0 }, 'plan.yaml')).toThrow(/planShare must be above 0 and at most 1/);
    expect(() => readPlan(plan, { planShare: 1.1 }, 'plan.yaml')).toThrow(/planShare must be above 0 and at most 1/);
    expect(() => readPlan(plan, [1], 'plan.yaml')).toThrow(/the plan must be fields with values/);
  });
});

describe('curves', () => {
  const curves = [
    { stage: 'imitation', step: 0, values: { loss: 2, 'misses <all>': 0.5, agreement: 0.9 } },
    { stage: 'search', step: 0, values: { loss: Number.NaN, 'misses <all>': 0.25, 'misses batch': 0 } },
    { stage: 'optimisation', step: 0, values: { loss: 1 } },
  ] as const;

  it('figures of one kind share a panel, what never moves is in a table, and names cannot break the page', () => {
    const svg = curvesSvg(curves);
    expect(svg.match(/<g /g)).toHaveLength(2);
    expect(svg.match(/<polyline /g)).toHaveLength(3);
    expect(svg.match(/<circle /g)).toHaveLength(5);
    expect(svg).toContain('■ &lt;all&gt;');
    expect(svg).not.toContain('NaN');
    const page = curvesPage(curves, 'Run', { teacher: 'a<b' });
    expect(page).toContain('<td>a&lt;b</td>');
    expect(page).toContain('<td>agreement</td><td>0.9000</td>');
    expect(page).not.toMatch(/src=|href=/);
  });

  it('shares are in percent and show where zero is', () => {
    const svg = curvesSvg([
      { stage: 'search', step: 0, values: { 'mean against best rule': 0.3, 'elite against best rule': 0.1 } },
      { stage: 'search', step: 1, values: { 'mean against best rule': -0.125, 'validation gain': -0.08 } },
    ]);
    expect(svg.match(/<g /g)).toHaveLength(1);
    expect(svg).toContain('30.0 %');
    expect(svg).toContain('-12.5 %');
    expect(svg).toContain('stroke-dasharray');
  });
});
