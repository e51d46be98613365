import fc from 'fast-check';
import loadHighs from 'highs';
import { describe, expect, it } from 'vitest';
import { solveTransport, type TransportProblem } from '#core/scheduling/transport-plan.js';

/** What is used of HiGHS: its types describe another module format. */
interface Solver {
  solve(problem: string): { readonly ObjectiveValue: number };
}

/** What a plan costs, drops included. */
function costOf(problem: TransportProblem, plan: Float64Array): number {
  const devices = problem.usdPerMs.length;
  return problem.rates.reduce((total, rate, model) => {
    let served = 0;
    let usd = 0;
    for (let device = 0; device < devices; device += 1) {
      const flow = plan[model * devices + device] as number;
      served += flow;
      if (flow > 0) usd += flow * (problem.ms[model]?.[device] as number) * (problem.usdPerMs[device] as number);
    }
    return total + usd + (rate - served) * problem.dropUsd;
  }, 0);
}

function asText({ rates, ms, usdPerMs, dropUsd, busyShare }: TransportProblem): string {
  const can = rates.flatMap((_, model) =>
    usdPerMs.flatMap((_usd, device) =>
      (ms[model]?.[device] ?? Infinity) < Infinity ? [[model, device] as const] : [],
    ),
  );
  const ofCost = can.map(([m, d]) => `${(ms[m]?.[d] as number) * (usdPerMs[d] as number)} x_${m}_${d}`);
  const drops = rates.map((_, model) => `${dropUsd} v_${model}`);
  const demands = rates.map((rate, model) => {
    const terms = can.filter(([m]) => m === model).map(([m, d]) => `x_${m}_${d}`);
    return ` c${model}: ${[...terms, `v_${model}`].join(' + ')} = ${rate}`;
  });
  const capacities = usdPerMs.flatMap((_, device) => {
    const terms = can.filter(([, d]) => d === device).map(([m, d]) => `${ms[m]?.[d] as number} x_${m}_${d}`);
    return terms.length === 0 ? [] : [` k${device}: ${terms.join(' + ')} <= ${busyShare}`];
  });
  return `Minimize\n obj: ${[...ofCost, ...drops].join(' + ')}\nSubject To\n${[...demands, ...capacities].join('\n')}\nEnd`;
}

describe('fluid plan', () => {
  it('costs what HiGHS finds, keeps every capacity and sends nothing where nothing is served', async () => {
    const highs = await (loadHighs as unknown as () => Promise<Solver>)();
    const time = fc.oneof(
      { weight: 1, arbitrary: fc.constant(Infinity) },
      { weight: 4, arbitrary: fc.integer({ min: 1, max: 50 }) },
    );
    const problem = fc
      .tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 6 }))
      .chain(([models, devices]) =>
        fc.record({
          rates: fc.array(
            fc.integer({ min: 0, max: 40 }).map((rate) => rate / 100),
            { minLength: models, maxLength: models },
          ),
          ms: fc.array(fc.array(time, { minLength: devices, maxLength: devices }), {
            minLength: models,
            maxLength: models,
          }),
          usdPerMs: fc.array(fc.integer({ min: 0, max: 9 }), { minLength: devices, maxLength: devices }),
          dropUsd: fc.constantFrom(5, 1000),
          busyShare: fc.constantFrom(0.9, 1),
        }),
      );
    fc.assert(
      fc.property(problem, (each) => {
        const plan = solveTransport(each);
        const devices = each.usdPerMs.length;
        each.usdPerMs.forEach((_, device) => {
          let busy = 0;
          each.rates.forEach((_rate, model) => {
            const flow = plan[model * devices + device] as number;
            const itemMs = each.ms[model]?.[device] as number;
            if (itemMs === Infinity) expect(flow).toBe(0);
            else busy += flow * itemMs;
          });
          expect(busy).toBeLessThanOrEqual(each.busyShare + 1e-9);
        });
        const best = highs.solve(asText(each)).ObjectiveValue;
        expect(costOf(each, plan)).toBeCloseTo(best, 6);
      }),
      { numRuns: 100 },
    );
  });
});
