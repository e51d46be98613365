/** Learned scheduling: how long a decision takes, how many are simulated a second, what logging them costs, and how good they are. */
import { evaluationGrid } from './policy-grid.js';
import { decisionLatency } from './policy-latency.js';
import { livePolicies } from './policy-live.js';
import { decisionLogCost } from './policy-log-cost.js';
import { simulationRate } from './policy-simulation.js';
import { benchReport, chosenParts, type Bench, type BenchOptions, type BenchRow } from './report.js';

interface Part {
  readonly name: string;
  readonly run: (options: BenchOptions) => readonly BenchRow[] | Promise<readonly BenchRow[]>;
}

const parts: readonly Part[] = [
  { name: 'latency', run: decisionLatency },
  { name: 'simulation', run: simulationRate },
  { name: 'log', run: decisionLogCost },
  { name: 'live', run: livePolicies },
  { name: 'grid', run: evaluationGrid },
];

export const run: Bench = async (options) => {
  const rows: BenchRow[] = [];
  for (const part of chosenParts(parts, options)) rows.push(...(await part.run(options)));
  return benchReport('policy', options, rows, [
    'A decision is from the entry of the picker to its return: rows of 36 features, scoring by a 36-32-32-3 network, shield.',
    'Between decisions the thread parses 6 kB of JSON and keeps the ledger, so that caches and garbage are those of a busy host.',
    'Decisions are simulated on one core, each with every message, queue and timer of the production code.',
    'The log is measured by two hosts that differ in it alone, driven in turns; every request has a deadline, and is logged.',
    'Live: real requests through a gateway to cpu, wasm and EMULATED devices (a profile’s times × 100, zeros for answers); the policy that comes with the product against the best rule by simulation, in turns, and the same requests simulated.',
    'The grid is simulated: objective against the best rule of each cell in hindsight, negative is better; --full for 20 seeds, more arrivals and stress.',
  ]);
};
