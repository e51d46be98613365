/** What `intarsia verify` asks and is told: plain data between the command line and the program. */
import type { ExecutionProvider, OptimizationLevel } from '#core/provider.js';

export interface SplitRequest {
  /** Path of the ONNX file. */
  readonly model: string;
  /** Shards of each cut; 1 compares the whole model on the first device. */
  readonly stages: number;
  /** Stage i runs on device i, beginning again after the last. */
  readonly devices: readonly ExecutionProvider[];
  /**
   * How many cuts, spread over the legal ones; `all` for every one, or every position where there are too many;
   * `annotated` for the one that the file asks for in ONNX's own words, whatever `stages` says.
   */
  readonly cuts: number | 'all' | 'annotated';
  readonly optimization: OptimizationLevel;
  /** Folder with `test_data_set_N`; empty: the model's own folder, and made-up inputs where there are none. */
  readonly vectors: string;
  /** For made-up inputs and for the choice of cuts. */
  readonly seed: number;
}

export interface SplitReport {
  readonly model: string;
  readonly stages: number;
  /** Cuts that ran: bit-exact, close and wrong ones. */
  readonly cutsTried: number;
  readonly bitExact: number;
  /** Different bits, within tolerance. */
  readonly close: number;
  readonly wrong: number;
  readonly impossible: readonly { readonly cut: readonly number[]; readonly reason: string }[];
  /** Over all cuts and outputs; infinite (null in JSON) when a cut gave no comparable answer. */
  readonly maxAbsoluteError: number;
  readonly maxRelativeError: number;
  /** `not-repeatable`: the whole model answers differently each time, so nothing can be compared. */
  readonly verdict: 'equal' | 'different' | 'no-legal-cut' | 'not-repeatable';
  /** Why it is not `equal`; empty otherwise. */
  readonly reason: string;
  /** Nodes that the outputs depend on: positions of cuts count these. */
  readonly nodes: number;
  readonly devices: readonly ExecutionProvider[];
  readonly optimization: OptimizationLevel;
  /** Level at which the reference ran: `disabled`, or higher where the model loads no other way. */
  readonly referenceOptimization: OptimizationLevel;
  readonly vectors: readonly string[];
  /** Largest relative error that is close; 0 when every bit counts. */
  readonly toleranceRelative: number;
  /** Absolute error that is close by quantised output: one quantisation step. */
  readonly toleranceSteps: Readonly<Record<string, number>>;
  /** The wrong cuts, at most 200. */
  readonly problems: readonly { readonly cut: readonly number[]; readonly problem: string }[];
  /** What had to be changed on the way, such as a lower optimisation level for a shard; at most 200. */
  readonly notes: readonly string[];
}
