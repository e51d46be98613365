/** Learned scheduling: how long a decision takes, and what keeping it costs. */
import { decisionLogCost } from './policy-log-cost.js';
import { decisionLatency } from './policy-latency.js';
import { benchReport, type Bench } from './report.js';

export const run: Bench = async ({ quick }) => {
  const rows = [...decisionLatency({ quick }), ...(await decisionLogCost({ quick }))];
  return benchReport('policy', { quick }, rows, [
    'A decision is from the entry of the picker to its return: rows of 32 features, scoring by a 32-32-32-3 network, shield.',
    'Between decisions the thread parses 6 kB of JSON and keeps the ledger, so that caches and garbage are those of a busy host.',
    'The decision log: two hosts that differ in it alone, driven in turns by the same load (gRPC, 64 in flight, two devices); processor time is that of the host process, the thread that writes included.',
  ]);
};
