// Test files that did not pass, and the report once they have run again.

/** Paths of the files in which a test failed, never ended because its process did, or that could not be loaded. */
export function failedFiles(report) {
  return report.testResults
    .filter(
      ({ status, assertionResults }) =>
        status === 'failed' || assertionResults.some((test) => test.status === 'failed' || test.status === 'pending'),
    )
    .map(({ name }) => name);
}

/** The report with the results of files that ran again in the place of their first ones. */
export function withRepeated(report, repeated) {
  const byName = new Map(repeated.testResults.map((file) => [file.name, file]));
  const testResults = report.testResults.map((file) => byName.get(file.name) ?? file);
  const tests = testResults.flatMap(({ assertionResults }) => assertionResults);
  const count = (...statuses) => tests.filter(({ status }) => statuses.includes(status)).length;
  return {
    ...report,
    testResults,
    numPassedTests: count('passed'),
    numFailedTests: count('failed'),
    numPendingTests: count('pending', 'skipped'),
    numTodoTests: count('todo'),
  };
}
