/** What is told of a run of a simulated grid. */
import type { ErrorCode } from '#core/errors.js';
import type { FiredFault } from './fault-injector.js';
import type { Violation } from './violations.js';

/** What came of a run. Plain data. */
export interface ScenarioReport {
  readonly seed: number;
  readonly hosts: number;
  readonly violations: readonly Violation[];
  /** With those whose texts were not kept. */
  readonly violationCount: number;
  readonly traceHash: string;
  readonly virtualMs: number;
  /** Tasks that ran on the virtual clock. */
  readonly steps: number;
  readonly requests: {
    readonly sent: number;
    readonly answered: number;
    readonly failed: Readonly<Partial<Record<ErrorCode, number>>>;
    /** Tries at gateways, and what gateways tried at devices. */
    readonly gatewayAttempts: number;
    /** Second attempts that gateways made before the first was late. */
    readonly hedges: number;
  };
  readonly sequences: {
    readonly begun: number;
    /** Answered to their ends, and requests of all that were. */
    readonly ended: number;
    readonly steps: number;
    /** Ended by a failure, by its code. */
    readonly broken: Readonly<Partial<Record<ErrorCode, number>>>;
  };
  readonly faults: readonly FiredFault[];
  /** Hosts that left at the end of a drain with a deadline, in that order. */
  readonly departed: readonly string[];
  readonly leaders: number;
  /** Virtual ms of calm until views, and what is served, were as they should be. */
  readonly viewsConvergedMs: number;
  readonly servedConvergedMs: number;
}
