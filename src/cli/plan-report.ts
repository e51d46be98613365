/** What `intarsia plan` asks and is told: plain data between the command line and the program. */
import type { PlacementConstraints } from '#core/grid/constraints.js';
import type { PlanGoal } from '#core/split/plan-problem.js';
import type { PlanStrategy } from '#core/split/plan-choice.js';
import type { SplitSpec } from '#core/split/split-spec.js';
import type { ClientOptions } from '#client/index.js';

export interface PlanRequest {
  /** Path of the ONNX file. */
  readonly model: string;
  /** `cpu`, `wasm:0`, `emulated:nvidia-l4`, each perhaps with `*N`; empty: every device of this machine. */
  readonly devices: readonly string[];
  readonly goal: PlanGoal;
  /** Longest latency of a request, ms; absent: any. */
  readonly sloMs?: number;
  /** Stages at most; absent: as many as devices. */
  readonly stagesMax?: number;
  /** Items of a request. */
  readonly items: number;
  readonly strategy: 'auto' | 'pipeline' | 'data';
  /** Execution providers that may be used; empty: all. */
  readonly providers: readonly string[];
  /** Memory limits by device, bytes. */
  readonly memoryBytes: ReadonlyMap<string, number>;
  /** Seconds that measuring may take; 0: nothing is measured. */
  readonly measureSeconds: number;
  /**
   * Whether devices of one processor are measured at work together too, and their pace there counts. Absent: where nobody
   * else uses the processor meanwhile; true: whoever does.
   */
  readonly contention?: boolean;
  /** Rows of the frontier at most. */
  readonly frontierMax: number;
  /** Folder with `test_data_set_N`; empty: the model's own, or made-up inputs. */
  readonly vectors: string;
  /** YAML file with more hardware profiles; empty for none. */
  readonly profilesPath: string;
  /** The grid whose devices the plan is for; absent: this machine. */
  readonly grid?: ClientOptions;
  /** Of a grid: tiers, zones and hosts that may be used; empty or absent: all. */
  readonly tiers?: readonly string[];
  readonly zones?: readonly string[];
  readonly hosts?: readonly string[];
  /** Whether a picture of the choice is wanted. */
  readonly picture: boolean;
  /** Where the whole model is written with the choice's cut in ONNX's own words; absent: nowhere. */
  readonly annotatedPath?: string;
}

/** A number with how far to trust it. */
export interface PlanNumber {
  readonly value: number;
  /** One standard deviation by the value: 0.05 is ± 5 %. */
  readonly plusMinus: number;
  readonly source: 'measured' | 'estimated';
}

export interface PlanStage {
  /** Several, where devices take turns. */
  readonly devices: readonly string[];
  readonly emulated: boolean;
  /** Threads of one run; 0 where that means nothing. */
  readonly threads: number;
  /** Positions in the sorted graph: first node, and the node behind the last. */
  readonly from: number;
  readonly to: number;
  /** One run. */
  readonly ms: PlanNumber;
  /** Weights and peak activations. */
  readonly memoryBytes: number;
  /** What it sends to the next stage in one run; 0 for the last. */
  readonly sendsBytes: number;
  readonly sendsMs: PlanNumber;
  /** Share of the work, where devices share whole models; 1 otherwise. */
  readonly share: number;
}

export interface PlanRow {
  readonly strategy: PlanStrategy;
  /** Items of one run, and runs of one request. */
  readonly batch: number;
  readonly runsPerRequest: number;
  readonly cuts: readonly number[];
  readonly stages: readonly PlanStage[];
  readonly latencyMs: PlanNumber;
  readonly requestsPerSecond: PlanNumber;
  readonly usdPer1000: PlanNumber;
  readonly joulesPerRequest: PlanNumber;
}

export interface PlanDeviceRow {
  readonly id: string;
  readonly name: string;
  readonly provider: string;
  readonly emulated: boolean;
  readonly memoryBytes: number;
  readonly threads: number;
  readonly usdPerHour: number;
  readonly busyWatts: number;
  /** Shards that were measured on its kind. */
  readonly measurements: number;
  /** Why the whole model does not run there, with the bytes missing; empty when it does. */
  readonly refusal: string;
  /** Of a grid. */
  readonly host?: string;
  readonly tier?: string;
  readonly zone?: string;
}

/** As deployment files have it. */
export interface PlanDeployment {
  readonly name: string;
  readonly model: string;
  readonly version: string;
  readonly replicas: number;
  readonly strategy: 'data' | 'pipeline';
  readonly constraints?: PlacementConstraints;
  readonly memoryBytes?: number;
  readonly split?: {
    readonly cuts: readonly number[];
    readonly digest: string;
    readonly compression: SplitSpec['compression'];
    readonly stages: SplitSpec['shards'];
  };
}

export interface PlanReport {
  readonly format: 1;
  readonly model: string;
  /** SHA-256 of the model file. */
  readonly digest: string;
  readonly nodes: number;
  /** Places where the model can be cut in two, and where not, with the first reason. */
  readonly legalCuts: number;
  readonly impossibleCuts: number;
  readonly impossibleReason: string;
  readonly goal: PlanGoal;
  readonly items: number;
  readonly sloMs?: number;
  readonly verdict: 'plan' | 'no-plan';
  /** Why there is no plan; empty otherwise. */
  readonly reason: string;
  readonly devices: readonly PlanDeviceRow[];
  readonly choice?: PlanRow;
  readonly frontier: readonly PlanRow[];
  /** The whole model on each device that takes it. */
  readonly wholes: readonly PlanRow[];
  /** By the goal: ms, ms between requests, dollars for 1,000 requests, joules a request. */
  readonly lowerBound: number;
  /** How much better than the best plan found any plan could still be, by the best plan; 0 when it is exact. */
  readonly gap: number;
  readonly isExact: boolean;
  /** The cut in the form of deployments; absent when the model is not split. */
  readonly split?: SplitSpec;
  /** The choice as a deployment: a file with this report is one that `intarsia deploy -f` takes. Absent without a choice. */
  readonly deployment?: PlanDeployment;
  readonly explanation: readonly string[];
  readonly notes: readonly string[];
  readonly measuredSeconds: number;
  /** The choice as SVG, when it was asked for. */
  readonly picture?: string;
}
