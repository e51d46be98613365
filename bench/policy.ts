/** Learned scheduling: how long a decision takes, and how good the decisions are. */
import { evaluationGrid } from './policy-grid.js';
import { decisionLatency } from './policy-latency.js';
import { benchReport, type Bench } from './report.js';

export const run: Bench = async (options) => {
  const rows = [...decisionLatency(options), ...(await evaluationGrid(options))];
  return benchReport('policy', options, rows, [
    'A decision is from the entry of the picker to its return: rows of 32 features, scoring by a 32-32-32-3 network, shield.',
    'Between decisions the thread parses 6 kB of JSON and keeps the ledger, so that caches and garbage are those of a busy host.',
    'The grid is simulated: objective against the best rule of each cell in hindsight, negative is better; --full for 20 seeds, more arrivals and stress.',
  ]);
};
