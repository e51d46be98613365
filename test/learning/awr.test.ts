import { beforeAll, describe, expect, it } from 'vitest';
import { loadTensorflow, type Tensorflow } from '#adapters/tfjs/tensorflow.js';
import { RandomStream } from '#core/random.js';
import { awrDefaults, regressOnAdvantages, type LoggedDecisions } from '#policies/learning/awr.js';
import { initialLayers } from '#policies/learning/layers.js';
import { padBatch, TrainableNetwork } from '#policies/learning/trainable-network.js';

/** Two rows a decision: a bit that says which is good, and a number that moves the return of both alike. */
function log(seed: number, decisions: number): LoggedDecisions {
  const random = new RandomStream(seed);
  const rows = new Float32Array(decisions * 4);
  const choices = new Uint16Array(decisions);
  const returns = new Float32Array(decisions);
  for (let index = 0; index < decisions; index += 1) {
    const good = random.below(2);
    const luck = random.next();
    rows.set([good === 0 ? 1 : 0, luck, good === 1 ? 1 : 0, luck], index * 4);
    const choice = random.below(2);
    choices[index] = choice;
    returns[index] = 20 * luck + (choice === good ? 1 : 0) + 0.1 * random.next();
  }
  return { rows, rowStarts: Uint32Array.from({ length: decisions + 1 }, (_, index) => 2 * index), choices, returns };
}

let tf: Tensorflow;
beforeAll(async () => {
  ({ tf } = await loadTensorflow('cpu'));
});

describe('advantage-weighted regression', () => {
  it('finds the better choice in logged decisions although luck moves returns twenty times as much', () => {
    const logged = log(1, 2_000);
    const deployed = initialLayers(new RandomStream(5), [2, 8, 1]);
    const losses: number[] = [];
    const { layers, explained, effectiveDecisions } = regressOnAdvantages(
      { tf, random: new RandomStream(2) },
      deployed,
      logged,
      { ...awrDefaults, learningRate: 0.01, epochs: 6, valueEpochs: 30, valueLearningRate: 0.01, normMax: 5 },
      ({ loss }) => losses.push(loss),
    );
    expect(explained).toBeGreaterThan(0.9);
    expect(effectiveDecisions).toBeGreaterThan(200);
    expect(losses).toHaveLength(6);

    const fresh = log(99, 500);
    const network = new TrainableNetwork(tf, layers);
    const batch = padBatch(
      fresh,
      Uint32Array.from({ length: 500 }, (_, index) => index),
      2,
    );
    const logProbs = network.logProbs(batch);
    network.dispose();
    let right = 0;
    for (let index = 0; index < 500; index += 1) {
      const isFirstGood = fresh.rows[index * 4] === 1;
      if (logProbs[2 * index]! > logProbs[2 * index + 1]! === isFirstGood) right += 1;
    }
    expect(right).toBeGreaterThan(450);
  });

  it('refuses a log with holes, strange numbers or choices that were not there', () => {
    const deployed = initialLayers(new RandomStream(5), [2, 8, 1]);
    const learn = (change: Partial<LoggedDecisions>) =>
      regressOnAdvantages(
        { tf, random: new RandomStream(2) },
        deployed,
        { ...log(1, 10), ...change },
        awrDefaults,
        () => {},
      );
    expect(() => learn({ returns: new Float32Array(9) })).toThrow(
      /a return each; got 11 starts, 10 choices, 9 returns/,
    );
    expect(() => learn({ returns: new Float32Array(10).fill(Number.NaN) })).toThrow(
      /return of logged decision 0 is not finite/,
    );
    expect(() => learn({ choices: new Uint16Array(10).fill(2) })).toThrow(/chose row 2 of 2/);
    expect(() => learn({ rows: new Float32Array(7) })).toThrow(/have 7 numbers; the row starts say 40/);
  });
});
