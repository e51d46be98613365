/** Learned scheduling: how long a decision takes. */
import { decisionLatency } from './policy-latency.js';
import { benchReport, type Bench } from './report.js';

export const run: Bench = ({ quick }) =>
  Promise.resolve(
    benchReport('policy', { quick }, decisionLatency({ quick }), [
      'A decision is from the entry of the picker to its return: rows of 32 features, scoring by a 32-32-32-3 network, shield.',
      'Between decisions the thread parses 6 kB of JSON and keeps the ledger, so that caches and garbage are those of a busy host.',
    ]),
  );
