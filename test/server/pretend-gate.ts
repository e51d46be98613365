/** A gate that cuts nothing and finds what it is told to find; the desk in front of it is the real one. */
import type { Rebalanced } from '#core/split/replan.js';
import type { GateFindings } from '#core/grid/verification.js';
import { intarsiaError } from '#core/errors.js';
import type { SplitGate, SplitPlaces, VerifyOptions } from '#ports/split-gate.js';

export class PretendGate implements SplitGate {
  readonly opened: SplitPlaces[] = [];
  readonly verified: VerifyOptions[] = [];
  closed = 0;
  /** Of each shard. */
  memoryBytes = 1_000_000;
  findings: Partial<GateFindings> = {};
  /** Resolves when comparing may end. */
  until: Promise<void> = Promise.resolve();

  /** A better cut, once somebody asks for one. */
  better: Rebalanced | undefined;

  readonly open: SplitGate['open'] = (_manifest, places, { progress }) => {
    this.opened.push(places);
    progress(0.5, 'comparing the pieces with the whole');
    const cuts =
      places.kind === 'cuts' ? places.cuts : Array.from({ length: places.stages - 1 }, (_, at) => 10 * (at + 1));
    if (cuts.some((cut) => cut > 100)) {
      return Promise.reject(intarsiaError('INVALID_ARGUMENT', 'positions ascend from 1 to 100'));
    }
    return Promise.resolve({
      cuts,
      shards: Array.from({ length: cuts.length + 1 }, () => ({ memoryBytes: this.memoryBytes, nodes: 5 })),
      values: { middle: { dataType: 1, shape: [-1, 4] }, loose: { dataType: 7 } },
      rebalance: () => this.better,
      verify: async (options) => {
        this.verified.push(options);
        await this.until;
        return { ...equal, providers: options.providers, ...this.findings };
      },
      close: () => {
        this.closed += 1;
        return Promise.resolve();
      },
    });
  };
}

const equal: GateFindings = {
  verdict: 'equal',
  reason: '',
  bitExact: false,
  maxAbsoluteError: 2.5e-7,
  maxRelativeError: 1.25e-6,
  toleranceRelative: 0.001,
  toleranceSteps: {},
  vectors: ['test_data_set_0'],
  providers: [],
  optimization: 'all',
  referenceOptimization: 'disabled',
  batches: true,
  notes: [],
};
