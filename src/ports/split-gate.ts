/**
 * What cuts a model for a deployment and proves the pieces equal to the whole, on this host.
 *
 * Promises: a model's files are fetched as for serving, and nothing is served of them; what is compared runs in executor
 * processes of its own, one thread each; whatever was opened is freed by `close`, also after a failure. Progress is told
 * now and then, never after the end.
 */
import type { Rebalanced } from '#core/split/replan.js';
import type { SplitCompression, SplitValue } from '#core/split/split-spec.js';
import type { GateFindings } from '#core/grid/verification.js';
import type { ModelManifest } from '#core/grid/records.js';

/** Where to cut: positions in the sorted graph, or so many stages of equal estimated work. */
export type SplitPlaces =
  | {
      readonly kind: 'cuts';
      readonly cuts: readonly number[];
      /** SHA-256 of the model that they were chosen for. */
      readonly digest?: string;
    }
  | { readonly kind: 'stages'; readonly stages: number };

export interface GateOptions {
  /** Moment on the monotonic clock, ms, by which files must be here; Infinity for none. */
  readonly deadlineMs: number;
  readonly progress: (share: number, words: string) => void;
}

export interface VerifyOptions {
  /** Execution provider of each stage; those that this host lacks are replaced by the CPU, and a note says so. */
  readonly providers: readonly string[];
  readonly compression: SplitCompression;
  /** Largest relative error that passes, instead of the gate's own. */
  readonly toleranceRelative?: number;
}

/** A model that is cut and ready to be compared. */
export interface OpenSplit {
  readonly cuts: readonly number[];
  /** By shard: an estimate of what it takes on a device. */
  readonly shards: readonly { readonly memoryBytes: number; readonly nodes: number }[];
  /** Types of the values that cross between stages. */
  readonly values: Readonly<Record<string, SplitValue>>;
  /** A cut for the milliseconds that the stages of this one show where they are; undefined when none is better. */
  rebalance(stageMs: readonly number[]): Rebalanced | undefined;
  verify(options: VerifyOptions): Promise<GateFindings>;
  close(): Promise<void>;
}

export interface SplitGate {
  /**
   * @throws INVALID_ARGUMENT (no such cut, no legal cut, with the reason), MODEL_INVALID, EXECUTION_FAILED (the whole model
   * does not run on the CPU), UNAVAILABLE (nobody gives the files), DEADLINE_EXCEEDED.
   */
  open(manifest: ModelManifest, places: SplitPlaces, options: GateOptions): Promise<OpenSplit>;
}
