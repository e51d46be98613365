/** What hosts tell each other of the stages of a split model: how its requests are run, and what is left of one on its way. */
import type { ModelName } from '../ids.js';
import type { SequenceStep } from '../sequence-step.js';
import type { Tensor } from '../tensor.js';
import type { PackedTensor } from './activation-codec.js';
import type { SplitCompression } from './split-spec.js';

/** A stage as whoever sends to it must know it. */
export interface StageInterface {
  /** Name under which devices have the shard: `shardModelName`. */
  readonly model: ModelName;
  readonly inputs: readonly string[];
  /** Everything it can give. */
  readonly outputs: readonly string[];
  /** It keeps states between the requests of a sequence: all of one sequence must go to the same holder. */
  readonly stateful?: true;
}

/** How requests for a split model are run. */
export interface SplitRoute {
  readonly id: string;
  /** At least two. */
  readonly stages: readonly StageInterface[];
  readonly compression: SplitCompression;
  /** Whether requests may share batches at each stage; else a request is a unit. */
  readonly batches: boolean;
}

/** What is left of a request behind the stage it is at. */
export interface StageChain {
  /** Number of the stage it is at, from 0. */
  readonly stage: number;
  /** The stages after it. */
  readonly stages: readonly StageInterface[];
  /** Values that later stages need and this one does not make, in the form in which they travel. */
  readonly carried: readonly PackedTensor[];
  /** Outputs that earlier stages made. */
  readonly done: readonly Tensor[];
  /** Outputs the client wants, in this order. */
  readonly outputs: readonly string[];
  readonly compression: SplitCompression;
  readonly batches: boolean;
  /** Items of the client's request, for the bill. */
  readonly items: number;
  /** Of a stateful model: which sequence it is part of. */
  readonly sequence?: SequenceStep;
  /** Tells this request from all others, at every stage behind the first: a stage that has it already does not run twice. */
  readonly key?: string;
}
