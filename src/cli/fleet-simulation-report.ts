/** What `intarsia simulate` asks and is told: plain data between the command line and the program. */

export interface FleetSimulationRequest {
  /** A fleet file, or the name of one that comes with the product. */
  readonly fleet: string;
  /** A trace file; empty to draw arrivals. */
  readonly trace: string;
  /** A stream as written, such as `poisson`; ignored with a trace. */
  readonly arrivals: string;
  /** Mean rate as a share of what the fleet can serve in time; undefined keeps the rate of the trace or stream. */
  readonly load: number | undefined;
  /** Who dispatches, named as `intarsia evaluate` takes it, `NAME@BATCHING` included: one run each, on the same arrivals. */
  readonly policies: readonly string[];
  /** A rule or a file, for those that bring no batching policy of their own. */
  readonly batching: string;
  /** Which models live where: `everywhere` as the file says, or a plan. */
  readonly residency: 'everywhere' | 'greedy' | 'milp';
  /** Seconds between two plans of residency, 5 to 60: then what planning again brings is reported, too. */
  readonly replan?: number | undefined;
  readonly seed: number;
  /** Requests drawn, or taken from the trace; undefined: all of the trace, else 20,000. */
  readonly requests: number | undefined;
  /** Whether the bounds are computed, which may take longer than the run. */
  readonly bounds: boolean;
}

export interface FleetSimulationReport {
  readonly fleet: string;
  readonly devices: number;
  readonly requests: number;
  /** Requests a second that arrived, and that the fleet could serve in time at most (LB4); 0 when it was not computed. */
  readonly ratePerSecond: number;
  readonly feasiblePerSecond: number;
  /** Requests whose tokens were cut to the model's largest batch. */
  readonly capped: number;
  /** Least mean objective that any policy could reach (LB1); undefined when it was not computed. */
  readonly bound: number | undefined;
  /** What the fleet costs an hour, and the cheapest fleet of these types that could serve the rate (LB6). */
  readonly usdPerHour: number;
  readonly cheapestUsdPerHour: number | undefined;
  /** Models by device, where a residency plan was made; undefined otherwise. */
  readonly residency: readonly { readonly device: string; readonly models: readonly string[] }[] | undefined;
  /** Plans made again and again, against a plan made once and the LP baseline; absent unless it was asked for. */
  readonly residencyOverTime?: readonly ResidencyTrackReport[] | undefined;
  readonly classes: readonly string[];
  readonly runs: readonly FleetRunReport[];
}

/** Fluid requests over an hour, window by window. */
export interface ResidencyTrackReport {
  readonly scenario: 'drift' | 'spot';
  /** `once`: planned for the mean and kept; `lp`: the baseline, planned again each time. */
  readonly planner: 'once' | 'lp' | 'greedy' | 'milp';
  /** US dollars an hour: busy time, misses, loading. */
  readonly usdPerHour: number;
  /** Over the LP baseline, less 1. */
  readonly change: number;
  readonly missedShare: number;
  readonly loads: number;
}

export interface FleetRunReport {
  readonly policy: string;
  readonly batching: string;
  /** Mean objective, and its parts in cost and misses. */
  readonly objective: number;
  readonly cost: number;
  readonly misses: number;
  /** Objective over the bound, less 1; undefined without a bound. */
  readonly gap: number | undefined;
  /** Share of requests late, shed or failed, by class; null for a class without requests. */
  readonly missShare: readonly (number | null)[];
  readonly usdPerThousand: number;
  readonly joulesPerRequest: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Mean time over that on an empty fleet (LB5). */
  readonly slowdown: number;
  /** Answers in time a second. */
  readonly goodput: number;
  readonly late: number;
  readonly shed: number;
  readonly lost: number;
  readonly meanBatch: number;
  readonly decisions: number;
  /** Share of decisions that a learned policy's shield left to its rule, of dispatch or of batching, whichever is more. */
  readonly fallbackRate: number;
  /** By the clock on the wall. */
  readonly decisionsPerSecond: number;
  readonly virtualMs: number;
  readonly hash: string;
}
