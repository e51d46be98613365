/** What `intarsia simulate-grid` asks and is told: plain data between the command line and the program. */

export interface GridSimulationRequest {
  /** 2 to 1,000. */
  readonly hosts: number;
  /** First seed, and how many follow. */
  readonly seed: number;
  readonly seeds: number;
  /** Of these, seeds that need not run. */
  readonly done: ReadonlySet<number>;
  /** Kinds of faults; undefined: all of them. */
  readonly faults: readonly string[] | undefined;
  /** Requests of clients while faults strike. */
  readonly requests: number;
  /** Processes that run seeds side by side. */
  readonly jobs: number;
  /** Runs this scenario, as a file holds it, instead of those that seeds draw. */
  readonly scenario: unknown;
}

/** How one seed, or scenario, went. */
export interface GridSimulationReport {
  readonly seed: number;
  readonly hosts: number;
  /** Fingerprint of everything that happened. */
  readonly traceHash: string;
  readonly violations: readonly { readonly checker: string; readonly atMs: number; readonly text: string }[];
  /** With those whose texts were not kept. */
  readonly violationCount: number;
  readonly virtualMs: number;
  readonly steps: number;
  readonly requests: {
    readonly sent: number;
    readonly answered: number;
    /** By error code. */
    readonly failed: Readonly<Record<string, number>>;
    readonly gatewayAttempts: number;
    /** Second attempts that gateways made before the first was late. */
    readonly hedges: number;
  };
  /** Of requests to stateful models: those answered to their ends, the requests of all, and what ended the others. */
  readonly sequences: {
    readonly begun: number;
    readonly ended: number;
    readonly steps: number;
    readonly broken: Readonly<Record<string, number>>;
  };
  /** Each fault, and how often it bit. */
  readonly faults: readonly {
    readonly kind: string;
    readonly atMs: number;
    readonly hosts: readonly string[];
    readonly fired: number;
  }[];
  /** Who led, one after the other. */
  readonly leaders: number;
  readonly viewsConvergedMs: number;
  readonly servedConvergedMs: number;
  /** The scenario, as it can be written to a file and run again; kept only when something was violated. */
  readonly scenario?: unknown;
}
