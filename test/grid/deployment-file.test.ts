import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IntarsiaError } from '#core/errors.js';
import { deploymentFromText, deploymentsOfFile, deploymentToText } from '#core/grid/deployment-file.js';
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
