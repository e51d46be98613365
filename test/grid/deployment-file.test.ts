import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IntarsiaError } from '#core/errors.js';
import { deploymentFromText, deploymentsOfFile, deploymentToText, wantedToText } from '#core/grid/deployment-file.js';
import { artifactDigest } from '#core/ids.js';
import { splitIdOf } from '#core/split/split-spec.js';
import { deploymentDifferences, differenceText } from '#core/grid/difference.js';

const whole = {
  name: 'digits',
  model: 'digits',
  version: 2,
  replicas: 2,
  constraints: { providers: ['cuda'], tiers: ['core'], labels: { rack: 'r1' }, spot: 'never' },
  spread: 'zone',
  memory: '1.5 GiB',
  rollout: { surge: 2, progressSeconds: 60 },
};

describe('a deployment file', () => {
  it('is read with every default filled in', () => {
    expect(deploymentsOfFile({ name: 'd', model: 'm', version: '1', replicas: 1 }, 'f')).toEqual([
      {
        format: 1,
        name: 'd',
        model: 'm',
        version: '1',
        replicas: 1,
        constraints: {},
        spread: 'host',
        memoryBytes: 0,
        rollout: { surge: 1, progressMsMax: 300_000 },
      },
    ]);
    const [deployment] = deploymentsOfFile({ deployments: [whole] }, 'f');
    expect(deployment).toMatchObject({ version: '2', memoryBytes: 1.5 * 2 ** 30, rollout: { progressMsMax: 60_000 } });
    expect(deploymentFromText(deploymentToText(deployment!), 'key')).toEqual(deployment);
  });

  it('says what becomes of large requests, or names the field, what is possible and what was found', () => {
    for (const strategy of ['data', 'pipeline', 'auto']) {
      const [deployment] = deploymentsOfFile({ ...whole, strategy }, 'f');
      expect(deployment?.strategy).toBe(strategy);
      expect(deploymentFromText(deploymentToText(deployment!), 'key')).toEqual(deployment);
    }
    expect(() => deploymentsOfFile({ ...whole, strategy: 'luck' }, 'f')).toThrow(
      'f: strategy: expected one of pipeline, data, auto; found "luck"',
    );
  });

  it('reads what it wants of a split, and what the store has of one', () => {
    const file = { name: 'd', model: 'm', version: 1, replicas: 1 };
    const wish = { cuts: [3, 8], compression: 'int8', tolerance: 0.1, standby: 1 };
    const listed = { ...wish, stages: [{ constraints: { hosts: ['a'] } }, { standby: 2, memory: '1 MiB' }, {}] };
    const [wanted] = deploymentsOfFile({ ...file, split: listed }, 'f');
    expect(wanted?.splitWish).toEqual({
      cuts: [3, 8],
      compression: 'int8',
      toleranceRelative: 0.1,
      shards: [{ constraints: { hosts: ['a'] }, standby: 1 }, { standby: 2, memoryBytes: 2 ** 20 }, { standby: 1 }],
    });
    expect(deploymentsOfFile(JSON.parse(wantedToText(wanted!)), 'f')).toEqual([wanted]);
    const [counted] = deploymentsOfFile({ ...file, split: { stages: 3 } }, 'f');
    expect(counted?.splitWish).toEqual({ stages: 3, shards: [], compression: 'none' });
    const digest = artifactDigest('a'.repeat(64));
    const made = { digest, cuts: [3], compression: 'none' } as const;
    const spec = {
      format: 1,
      id: splitIdOf(made),
      ...made,
      shards: [{ memoryBytes: 1, plannedMs: 2.5 }, { memoryBytes: 2 }],
    };
    const [stored] = deploymentsOfFile({ ...file, split: spec }, 'f');
    expect(stored?.split).toEqual(spec);
    expect(deploymentFromText(deploymentToText(stored!), 'key')).toEqual(stored);
    expect(() => deploymentFromText(wantedToText(wanted!), 'key')).toThrow('key: split: a split that was never made');
  });

  const splitMistakes: readonly (readonly [split: unknown, message: string])[] = [
    [3, 'f: split: expected a map of fields; found 3'],
    [{}, 'f: split: expected one of cuts, stages and plan; found "none of them"'],
    [{ stages: 1 }, 'f: split.stages: expected a whole number from 2 to 64; found 1'],
    [{ cuts: [] }, 'f: split.cuts: expected at least one position; found []'],
    [{ cuts: [4, 4] }, 'f: split.cuts[1]: expected a whole number from 5 to'],
    [{ cuts: [4], stages: 3 }, 'f: split.stages: expected 2 stages, one more than cuts; found 3'],
    [{ cuts: [4], compression: 'zip' }, 'f: split.compression: expected one of none, fp16, int8; found "zip"'],
    [{ cuts: [4], tolerance: 2 }, 'f: split.tolerance: expected a relative error above 0, at most 1; found 2'],
    [{ stages: [{}, { device: 'x' }] }, 'f: split.stages[1].device: expected no such field; known are constraints,'],
    [{ stages: [{}, { standby: -1 }] }, 'f: split.stages[1].standby: expected a whole number from 0 to 100; found -1'],
    [
      { stages: [{ constraints: { tiers: ['x'] } }, {}] },
      'f: split.stages[0].constraints.tiers[0]: expected one of edge, regional, core; found "x"',
    ],
    [{ cuts: [4], plan: {} }, 'f: split: expected at most one of cuts and plan; found "both of them"'],
    [{ plan: 'x.json' }, 'f: split.plan: expected the report of `intarsia plan --json`; found "x.json"'],
    [{ plan: { reason: '' } }, 'f: split.plan: expected a plan that splits the model; found "not to split is better"'],
    [
      { id: 'x', format: 1, digest: 'a', cuts: [1], compression: 'none', shards: [{}, {}] },
      'f: split.digest: expected',
    ],
    [
      { id: 'x', format: 1, digest: 'a'.repeat(64), cuts: [1], compression: 'none', shards: [{}, {}] },
      'which follows from digest, cuts and compression; found "x"',
    ],
  ];

  it('names the path of every mistake in a split', () => {
    for (const [split, message] of splitMistakes) {
      expect(() => deploymentsOfFile({ name: 'd', model: 'm', version: 1, replicas: 1, split }, 'f')).toThrow(message);
    }
  });

  const mistakes: readonly (readonly [data: unknown, message: string])[] = [
    [7, 'f: expected a deployment, or an object with `deployments:`, a list of them; found 7'],
    [{ ...whole, replica: 1 }, 'f: replica: expected no such field; known are format, name'],
    [{ ...whole, name: '../x' }, 'f: name: expected 1 to 63 letters, digits and _ . -'],
    [{ ...whole, replicas: 10_001 }, 'f: replicas: expected a whole number from 0 to 10000; found 10001'],
    [{ ...whole, replicas: 1.5 }, 'f: replicas: expected a whole number from 0 to 10000; found 1.5'],
    [
      { ...whole, replicasPerTier: { core: 1 } },
      'f: expected exactly one of replicas and replicasPerTier; found "both',
    ],
    [{ ...whole, version: 0 }, 'f: version: expected model version "0" is not a positive whole number'],
    [
      { ...whole, constraints: { tiers: ['cloud'] } },
      'f: constraints.tiers[0]: expected one of edge, regional, core; found "cloud"',
    ],
    [
      { ...whole, constraints: { labels: { a: 1 } } },
      'f: constraints.labels.a: expected a text of 1 to 255 characters; found 1',
    ],
    [
      { ...whole, constraints: { hosts: [] } },
      'f: constraints.hosts: expected at least one entry, or no such field; found []',
    ],
    [{ ...whole, memory: '1 GB' }, 'f: memory: expected a size such as 512 MiB'],
    [{ ...whole, rollout: { surge: 0 } }, 'f: rollout.surge: expected a whole number from 1 to 100; found 0'],
    [
      { deployments: [whole, { ...whole }] },
      'f: deployments[1].name: expected a name of its own: deployments[0] has it; found "digits"',
    ],
    [
      { deployments: [{ ...whole, model: 7 }] },
      'f: deployments[0].model: expected a text of 1 to 255 characters; found 7',
    ],
  ];

  it('names path, limit and value of each mistake', () => {
    for (const [data, message] of mistakes) {
      const read = (): unknown => deploymentsOfFile(data, 'f');
      expect(read, message).toThrow(IntarsiaError);
      expect(read).toThrow(message);
    }
  });

  it('is a list of deployments or CONFIG_INVALID, whatever the data', () => {
    fc.assert(
      fc.property(fc.anything(), fc.constantFrom(...Object.keys(whole)), (value, field) => {
        for (const data of [value, { ...whole, [field]: value }]) {
          try {
            for (const one of deploymentsOfFile(data, 'f')) expect(one.format).toBe(1);
          } catch (thrown) {
            expect(thrown).toMatchObject({ code: 'CONFIG_INVALID' });
          }
        }
      }),
      { numRuns: 500 },
    );
  });

  it('shows what applying it would change, field by field', () => {
    const [before] = deploymentsOfFile(whole, 'f');
    const [after] = deploymentsOfFile({ ...whole, version: 3, rollout: { surge: 1 }, constraints: {} }, 'f');
    const [added] = deploymentsOfFile({ name: 'x', model: 'm', version: 1, replicas: 1 }, 'f');
    const stored = new Map([['digits', before!]]);
    expect(differenceText(deploymentDifferences(stored, [after!]))).toBe(
      [
        '~ deployment digits',
        '    - constraints.labels.rack: "r1"',
        '    - constraints.providers: ["cuda"]',
        '    - constraints.spot: "never"',
        '    - constraints.tiers: ["core"]',
        '    ~ rollout.progressMsMax: 60000 -> 300000',
        '    ~ rollout.surge: 2 -> 1',
        '    ~ version: "2" -> "3"',
      ].join('\n'),
    );
    expect(deploymentDifferences(stored, [before!])).toEqual([{ name: 'digits', kind: 'same', changes: [] }]);
    expect(deploymentDifferences(stored, [added!], true).map(({ name, kind }) => `${name} ${kind}`)).toEqual([
      'digits removed',
      'x new',
    ]);
  });
});
