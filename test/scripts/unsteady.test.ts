import { describe, expect, it } from 'vitest';
import { failedFiles, withRepeated } from '../../scripts/unsteady.mjs';

const file = (name: string, status: string, ...statuses: string[]) => ({
  name,
  status,
  assertionResults: statuses.map((each, index) => ({ title: `test ${index}`, status: each })),
});

describe('files that did not pass', () => {
  const report = {
    testResults: [
      file('passes', 'passed', 'passed', 'skipped', 'todo'),
      file('fails', 'failed', 'passed', 'failed'),
      file('cannot be loaded', 'failed'),
      // The reporter takes a file whose process ended for one that passed, with tests that are pending.
      file('crashes', 'passed', 'pending', 'pending', 'skipped'),
    ],
  };

  it('are those with a failed test, with one that never ended, and those that cannot be loaded', () => {
    expect(failedFiles(report)).toEqual(['fails', 'cannot be loaded', 'crashes']);
  });

  it('count with what they came to when they ran again', () => {
    const again = { testResults: [file('fails', 'passed', 'passed', 'passed'), file('crashes', 'failed', 'failed')] };
    const after = withRepeated(report, again);
    expect(failedFiles(after)).toEqual(['cannot be loaded', 'crashes']);
    expect(after).toMatchObject({ numPassedTests: 3, numFailedTests: 1, numPendingTests: 1, numTodoTests: 1 });
  });
});
