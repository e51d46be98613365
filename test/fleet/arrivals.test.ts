import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { builtInProfiles } from '#core/hardware-profile-book.js';
import { arrivalProcess } from '#sim/fleet/arrival-process.js';
import { drawArrivals, meanRate, traceArrivals } from '#sim/fleet/arrivals.js';
import { readFleet } from '#sim/fleet/read-fleet.js';
import { seededRandom } from '#sim/random.js';
import { readTrace } from '#sim/fleet/trace-file.js';
import { mean } from './fleets.js';

const tables = { d: { 1: 1, 16: 16 } };
const fleet = readFleet(
  {
    name: 'arrivals',
    models: [
      { name: 'plain', share: 3, tables },
      { name: 'llm', share: 1, itemsMax: 16, tokens: { perItem: 100, generatedWeight: 5 }, tables },
    ],
    devices: [{ name: 'd', usdPerHour: 1, watts: 1 }],
  },
  'arrivals.yaml',
  builtInProfiles,
);

const azureHead = 'TIMESTAMP,ContextTokens,GeneratedTokens';

/** Variance over mean of the counts in bins. */
function dispersion(atMs: Float64Array, binMs: number): number {
  const counts = new Float64Array(Math.ceil((atMs.at(-1) ?? 0) / binMs));
  for (const at of atMs) counts[Math.floor(at / binMs)] = (counts[Math.floor(at / binMs)] ?? 0) + 1;
  const average = mean(counts);
  return mean(counts.map((count) => (count - average) ** 2)) / average;
}

describe('streams of arrivals', () => {
  const draw = (words: string, count = 40_000): Float64Array => arrivalProcess(words).draw(count, seededRandom(words));

  it('have the mean rate they are asked for', () => {
    for (const [words, rate] of [
      ['poisson:rate=50', 50],
      ['diurnal:rate=50,swing=0.8,period=20000', 50],
      ['onoff:rate=100,on=1000,off=1000', 50],
      ['mmpp:rates=20/200,dwell=5000/1000', 50],
      ['flash:rate=50,factor=10,every=10000,length=1000', 50 * 1.9],
    ] as const) {
      expect(Math.abs(meanRate(draw(words)) / rate - 1)).toBeLessThan(0.1);
    }
  });

  it('are as bursty as their kind: Poisson counts vary as their mean, modulated ones far more', () => {
    expect(Math.abs(dispersion(draw('poisson:rate=100'), 100) - 1)).toBeLessThan(0.15);
    for (const words of ['mmpp', 'onoff', 'flash', 'diurnal:period=60000']) {
      expect(dispersion(draw(words), 1000)).toBeGreaterThan(3);
    }
  });

  it('follow from the seed, ascend, and keep their shape at another rate', () => {
    const options = { seed: 5, requests: 1000 };
    const first = drawArrivals(fleet, arrivalProcess('mmpp'), options);
    const again = drawArrivals(fleet, arrivalProcess('mmpp'), options);
    const faster = drawArrivals(fleet, arrivalProcess('mmpp'), { ...options, ratePerSecond: 500 });
    expect([...again.atMs]).toEqual([...first.atMs]);
    expect([...again.model]).toEqual([...first.model]);
    expect(first.atMs.every((at, index) => index === 0 || at >= (first.atMs[index - 1] as number))).toBe(true);
    expect(meanRate(faster.atMs)).toBeCloseTo(500, 6);
    const [start, factor] = [first.atMs[0] as number, meanRate(first.atMs) / 500];
    expect(faster.atMs[700]).toBeCloseTo(((first.atMs[700] as number) - start) * factor, 6);
    expect([...faster.model]).toEqual([...first.model]);
  });

  it('draw models and classes by their shares', () => {
    const { model, sloClass } = drawArrivals(fleet, arrivalProcess('poisson'), { seed: 1, requests: 20_000 });
    expect(mean(model)).toBeCloseTo(0.25, 1);
    expect(
      [0, 1, 2].map((index) => Math.round(mean([...sloClass].map((each) => Number(each === index))) * 10)),
    ).toEqual([4, 4, 2]);
  });

  it.each([
    'nope',
    'poisson:rate=0',
    'poisson:rate=x',
    'poisson:speed=3',
    'poisson:rate',
    'mmpp:rates=1/2,dwell=5',
    'mmpp:rates=0/0',
    'diurnal:swing=2',
  ])('refuse to be written %s', (words) => {
    expect(() => arrivalProcess(words)).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }));
  });
});

describe('traces', () => {
  it('are read as Azure, Mooncake and plain files have them', () => {
    const azure = readTrace(
      `${azureHead}\r\n2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,396,109\r\n`,
      'a.csv',
    );
    expect(
      azure.map(({ atMs, contextTokens, generatedTokens }) => [atMs - azure[0]!.atMs, contextTokens, generatedTokens]),
    ).toEqual([
      [0, 374, 44],
      [expect.closeTo(4314.579, 2), 396, 109],
    ]);
    const mooncake = readTrace(
      '{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0]}\n{"timestamp": 27, "input_length": 7, "output_length": 0}',
      'm.jsonl',
    );
    expect(mooncake).toMatchObject([
      { line: 1, atMs: 0, contextTokens: 6758 },
      { line: 2, atMs: 27, generatedTokens: 0 },
    ]);
    const plain = readTrace('at_ms,model,class,items\n0,plain,batch,1\n1.5,llm,interactive,4\n', 'p.csv');
    expect(plain).toMatchObject([
      { model: 'plain', sloClass: 2, items: 1 },
      { atMs: 1.5, model: 'llm', sloClass: 0, items: 4 },
    ]);
  });

  it('turn tokens into items by the rule of the model, and say how many were cut', () => {
    const rows = readTrace(
      'at_ms,context_tokens,generated_tokens\n0,100,0\n10,101,0\n20,50,30\n30,5000,100\n40,0,0',
      't.csv',
    );
    const arrivals = traceArrivals(fleet, rows, { seed: 1 });
    // Rows of tokens go to the model that has a rule for them.
    expect([...arrivals.model]).toEqual([1, 1, 1, 1, 1]);
    expect([...arrivals.items]).toEqual([1, 2, 2, 16, 1]);
    expect(arrivals.capped).toBe(1);
    expect([...traceArrivals(fleet, rows, { seed: 1, from: 1, requests: 2 }).atMs]).toEqual([0, 10]);
    expect(meanRate(traceArrivals(fleet, rows, { seed: 1, ratePerSecond: 8 }).atMs)).toBeCloseTo(8, 9);
  });

  const refused: readonly (readonly [what: string, text: string, line: number])[] = [
    ['an unsorted row', 'at_ms\n5\n3', 3],
    ['a negative time', 'at_ms\n-5', 2],
    ['a missing field', 'at_ms,items\n5', 2],
    ['an empty field', `${azureHead}\n2023-11-16 18:15:46.6805900,,44`, 2],
    ['negative tokens', `${azureHead}\n2023-11-16 18:15:46.6805900,-1,44`, 2],
    ['a half token', `${azureHead}\n2023-11-16 18:15:46.6805900,1.5,44`, 2],
    ['a bad time', `${azureHead}\nyesterday,1,44`, 2],
    ['an unknown class', 'at_ms,class\n0,batch\n1,soon', 3],
    ['no items', 'at_ms,items\n0,0', 2],
    ['a row of JSON that is none', '{"timestamp": 0, "input_length": 1, "output_length": 1}\n{"timestamp": 1', 2],
    ['a row of JSON without its length', '{"timestamp": 0, "output_length": 1}', 1],
    ['a file of another kind', 'when,what\n1,2', 1],
    ['no rows', azureHead, 1],
  ];
  it('are refused with an unsorted, negative, missing or unknown field, by line', () => {
    for (const [what, text, line] of refused) {
      expect(() => readTrace(text, 't.csv'), what).toThrow(
        expect.objectContaining({
          code: 'INVALID_ARGUMENT',
          message: expect.stringContaining(`line ${line}`) as unknown,
        }),
      );
    }
  });

  it('are refused where the fleet cannot take a row, by line', () => {
    expect(() => traceArrivals(fleet, readTrace('at_ms,model\n0,plain\n1,other', 't.csv'), { seed: 1 })).toThrow(
      'line 3',
    );
    expect(() => traceArrivals(fleet, readTrace('at_ms,model,items\n0,llm,17', 't.csv'), { seed: 1 })).toThrow(
      'line 2',
    );
    expect(() => traceArrivals(fleet, readTrace('at_ms\n0', 't.csv'), { seed: 1, from: 1 })).toThrow('1 rows');
  });

  const azure = '../shared/traces/azure_llm_2023/AzureLLMInferenceTrace_conv.csv';
  it.skipIf(!existsSync(azure))(
    'read the whole Azure conversation trace (skipped where ../shared/traces is absent)',
    () => {
      const rows = readTrace(readFileSync(azure, 'utf8'), 'conv.csv');
      expect(rows.length).toBe(19_366);
      const arrivals = traceArrivals(fleet, rows, { seed: 1 });
      expect(meanRate(arrivals.atMs)).toBeCloseTo(5.53, 1);
      expect(dispersion(arrivals.atMs, 10_000)).toBeGreaterThan(3);
    },
  );
});
