/** How many decisions a second a simulated fleet makes on one core, by the clock on the wall, every actor message included. */
import { NodeClock } from '#adapters/node/clock.js';
import { simulateFleet } from '#compose/simulate-fleet.js';
import { shippedPolicy } from '#core/scheduling/shipped-policy.js';
import { benchRow, type BenchRow } from './report.js';

const rule = 'cheapest-feasible';
const rateMin = 50_000;

export async function simulationRate({ quick }: { readonly quick: boolean }): Promise<readonly BenchRow[]> {
  const { devices, runs } = await simulateFleet(
    {
      ...{ fleet: 'edge-and-core', trace: '', arrivals: 'poisson', load: 0.7, requests: quick ? 1_000 : 60_000 },
      ...{ policies: [rule, shippedPolicy], batching: 'deadline-cap+shed', residency: 'everywhere' },
      ...{ seed: 1, bounds: false },
    },
    () => {},
    new NodeClock(),
  );
  return [rule, shippedPolicy].map((policy, index) =>
    benchRow({
      key: `policy.simulation.${policy}.rate`,
      label: `decisions simulated, ${devices} devices, ${policy}`,
      value: runs[index]?.decisionsPerSecond ?? Number.NaN,
      unit: 'decisions/s',
      ...(policy === rule ? { target: { kind: 'at-least', value: rateMin } } : {}),
    }),
  );
}
