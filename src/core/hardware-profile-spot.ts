/**
 * How often spot capacity goes away, computed from the traces that SkyPilot published. The hazard belongs to a zone and a
 * gang size, not to a kind of silicon: large gangs are 3 to 8 times riskier than one machine.
 */

export interface SpotHazard {
  readonly pool: string;
  /** Share of the time in which capacity was to be had, 0 to 1. */
  readonly availability: { readonly low: number; readonly high: number };
  /** Losses per hour of running. */
  readonly lossesPerHour: { readonly low: number; readonly high: number };
}

const one = (pool: string, availability: number, lossesPerHour: number): SpotHazard => ({
  pool,
  availability: { low: availability, high: availability },
  lossesPerHour: { low: lossesPerHour, high: lossesPerHour },
});

export const spotHazards: readonly SpotHazard[] = Object.freeze([
  one('V100 AWS us-west-2a', 0.88, 0.16),
  one('V100 AWS us-west-2b', 0.9, 0.1),
  one('V100 AWS us-west-2c', 0.89, 0.15),
  one('V100 AWS us-east-2a', 0.76, 0.18),
  one('V100 AWS us-east-2b', 0.68, 0.23),
  one('V100 AWS us-east-1a', 0.17, 1.39),
  one('V100 AWS us-east-1c', 0.47, 0.67),
  one('V100 AWS us-east-1d', 0.45, 0.6),
  one('V100 AWS us-east-1f', 0.59, 0.44),
  one('8×V100 AWS us-west-2a', 0.48, 0.86),
  one('8×V100 AWS us-west-2b', 0.47, 1.32),
  one('8×K80 AWS us-west-2a', 0.33, 0.64),
  one('8×K80 AWS us-west-2b', 0.41, 0.93),
  { pool: 'gang of 16 V100', availability: { low: 0.41, high: 0.46 }, lossesPerHour: { low: 0.5, high: 0.6 } },
  {
    pool: 'r5.16xlarge AWS us-east-1',
    availability: { low: 0.64, high: 0.94 },
    lossesPerHour: { low: 0.19, high: 1.32 },
  },
  { pool: 'c3-88 GCP', availability: { low: 0.95, high: 1 }, lossesPerHour: { low: 0, high: 0.07 } },
]);

/** Gamma prior of the hazard where nothing is known about a zone: mean per hour, and shape. */
export const spotHazardPrior = Object.freeze({ meanPerHour: 0.3, shape: 2 });

/**
 * Hazard of a zone after watching it: the gamma posterior's mean, losses per hour of running.
 * With nothing watched it is the prior's mean; with much watched, the plain rate.
 */
export function spotHazardPerHour(observed: { readonly losses: number; readonly upHours: number }): number {
  const rate = spotHazardPrior.shape / spotHazardPrior.meanPerHour;
  return (spotHazardPrior.shape + observed.losses) / (rate + observed.upHours);
}
