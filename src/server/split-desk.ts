/**
 * Makes the split that a deployment wants: the model is cut, its stages are given places as the leader would give them, and
 * on the providers of these places the pieces are compared with the whole. What was found is stored before the deployment
 * is, because nobody places a split that was not found equal.
 */
import { intarsiaError } from '#core/errors.js';
import { deploymentFromText, wantedToText, type WantedDeployment } from '#core/grid/deployment-file.js';
import type { GridKeys } from '#core/grid/keys.js';
import { placementLine, type PlacedReplica } from '#core/grid/placement-lines.js';
import type { Deployment, ModelManifest } from '#core/grid/records.js';
import { verificationText, type VerificationRecord } from '#core/grid/verification.js';
import type { SplitWish } from '#core/grid/split-file.js';
import type { HostId } from '#core/ids.js';
import type { ServingStage } from '#core/split/replan.js';
import { splitIdOf, type SplitSpec } from '#core/split/split-spec.js';
import { formatBytes, formatMs } from '#core/units.js';
import type { Clock } from '#ports/clock.js';
import type { PreparedSplit } from '#ports/grid-admin.js';
import type { OpenSplit, SplitGate } from '#ports/split-gate.js';
import type { Store } from '#ports/store.js';

export interface SplitDeskOptions {
  readonly gate: SplitGate;
  readonly store: Store;
  readonly keys: GridKeys;
  readonly clock: Clock;
  readonly host: HostId;
}

export interface PlanAgainRequest extends Pick<PrepareRequest, 'manifest' | 'place' | 'known' | 'deadlineMs'> {
  readonly deployment: Deployment;
  readonly stages: readonly ServingStage[];
}

export interface PrepareRequest {
  readonly wanted: WantedDeployment & { readonly splitWish: SplitWish };
  readonly dryRun: boolean;
  readonly manifest: ModelManifest;
  /** Where a deployment's replicas would go, and why they would go nowhere. */
  readonly place: (deployment: Deployment) => { readonly placed: readonly PlacedReplica[]; readonly refusal: string };
  /** What the gate found before. */
  readonly known: (split: string) => VerificationRecord | undefined;
  /** Monotonic ms. */
  readonly deadlineMs: number;
  readonly onProgress: (share: number, words: string) => void;
}

const writeMsMax = 10_000;

export class SplitDesk {
  readonly #options: SplitDeskOptions;
  #isBusy = false;

  constructor(options: SplitDeskOptions) {
    this.#options = options;
  }

  /** @throws INVALID_ARGUMENT (no such cut), RESOURCE_EXHAUSTED (busy), and what SplitGate.open throws. */
  async prepare(request: PrepareRequest): Promise<PreparedSplit> {
    if (this.#isBusy) {
      throw intarsiaError(
        'RESOURCE_EXHAUSTED',
        `host ${this.#options.host} compares another split with its model; one at a time: try again when it is done`,
        {},
      );
    }
    this.#isBusy = true;
    try {
      return await this.#prepare(request);
    } finally {
      this.#isBusy = false;
    }
  }

  /**
   * The deployment cut anew for the times that its stages show, compared with the whole like any other; undefined when no
   * cut is better by a tenth. @throws as `prepare`, and FAILED_PRECONDITION when the new cut is refused, with the reason.
   */
  async planAgain(
    { deployment, stages, ...request }: PlanAgainRequest,
    onProgress: PrepareRequest['onProgress'] = () => {},
  ): Promise<Deployment | undefined> {
    const { split } = deployment;
    if (split === undefined) return undefined;
    const { cuts, digest, compression } = split;
    const places = { kind: 'cuts', cuts, digest } as const;
    const open = await this.#options.gate.open(request.manifest, places, {
      deadlineMs: request.deadlineMs,
      progress: onProgress,
    });
    let better: ReturnType<OpenSplit['rebalance']>;
    try {
      better = open.rebalance(stages.map(({ ms }) => ms));
    } finally {
      await open.close();
    }
    if (better === undefined) return undefined;
    const tolerance = request.known(split.id)?.toleranceRelative ?? 0;
    const shards = better.kept.map((kept): SplitWish['shards'][number] => {
      // What a plan expected was expected of another cut.
      const { memoryBytes: _, plannedMs: _planned, ...before } = split.shards[kept] ?? { memoryBytes: 0 };
      return { ...before, prefer: stages[kept]?.place ?? '' };
    });
    const splitWish: SplitWish = {
      ...{ cuts: better.cuts, digest, shards, compression, replan: true },
      ...(tolerance > 0 ? { toleranceRelative: tolerance } : {}),
    };
    const { split: _, ...whole } = deployment;
    const wanted = { ...whole, splitWish };
    const prepared = await this.prepare({ ...request, wanted, dryRun: false, onProgress });
    if (prepared.refusal !== '') {
      throw intarsiaError(
        'FAILED_PRECONDITION',
        `a better cut [${better.cuts.join(',')}] is refused: ${prepared.refusal}`,
      );
    }
    const made = deploymentFromText(prepared.deploymentJson, deployment.name);
    if (made.split === undefined) return undefined;
    const why = `planned again, because its slowest stage takes ${formatMs(better.beforeMs)} and need not take more than ${formatMs(better.afterMs)}`;
    return { ...made, split: { ...made.split, why } };
  }

  async #prepare(request: PrepareRequest): Promise<PreparedSplit> {
    const { wanted, manifest, onProgress: progress, deadlineMs } = request;
    const { splitWish: wish, ...deployment } = wanted;
    const { cuts, stages = 0, digest } = wish;
    const places =
      cuts === undefined
        ? ({ kind: 'stages', stages } as const)
        : ({ kind: 'cuts', cuts, ...(digest === undefined ? {} : { digest }) } as const);
    const open = await this.#options.gate.open(manifest, places, { deadlineMs, progress });
    try {
      return await this.#judge(request, deployment, open);
    } finally {
      await open.close();
    }
  }

  async #judge(request: PrepareRequest, deployment: Deployment, open: OpenSplit): Promise<PreparedSplit> {
    const { wanted, dryRun, place, known } = request;
    const split = specOf(wanted.splitWish, request.manifest, open);
    const { placed, refusal } = place({ ...deployment, split });
    const lines = stageLines(split, open, placed);
    const answer = (record: VerificationRecord | undefined, refused: string): PreparedSplit => ({
      deploymentJson: wantedToText({
        ...deployment,
        split: record === undefined ? split : { ...split, splitBatches: record.batches },
      }),
      refusal: refused,
      stages: lines,
      verdict: record === undefined ? '' : verificationText(record),
      verificationJson: record === undefined ? '' : JSON.stringify(record),
    });
    const before = known(split.id);
    if (dryRun || refusal !== '') return answer(before, refusal);
    const planned = split.shards.map(
      (_, shard) => placed.find(({ replica }) => replica.shard === shard)?.provider ?? 'cpu',
    );
    const { compression, toleranceRelative } = wanted.splitWish;
    // What was found of the same pieces on the same providers still holds.
    const isKnown =
      before?.verdict === 'equal' &&
      before.planned.join() === planned.join() &&
      (toleranceRelative === undefined || toleranceRelative === before.toleranceRelative);
    if (isKnown) return answer(before, '');
    const findings = await open.verify({
      providers: planned,
      compression,
      ...(toleranceRelative === undefined ? {} : { toleranceRelative }),
    });
    const { model, version } = deployment;
    const record: VerificationRecord = {
      format: 1,
      model,
      version,
      split: split.id,
      digest: split.digest,
      cuts: split.cuts,
      compression,
      planned,
      host: this.#options.host,
      wallMs: this.#options.clock.wallMs(),
      ...findings,
    };
    await this.#store(record);
    const refused =
      findings.verdict === 'equal' ? '' : `the pieces are not equal to the whole: ${verificationText(record)}`;
    return answer(record, refused);
  }

  async #store(record: VerificationRecord): Promise<void> {
    const { store, keys, clock } = this.#options;
    const key = keys.verification(record.model, record.version, record.split);
    await store.transact(
      { conditions: [], operations: [{ type: 'put', key, value: JSON.stringify(record) }] },
      { deadlineMs: clock.nowMs() + writeMsMax },
    );
  }
}

function specOf({ shards, compression, replan }: SplitWish, { digest }: ModelManifest, open: OpenSplit): SplitSpec {
  const { cuts, values } = open;
  return {
    format: 1,
    id: splitIdOf({ digest, cuts, compression }),
    digest,
    cuts,
    shards: open.shards.map(({ memoryBytes }, shard) => ({ memoryBytes, ...shards[shard] })),
    compression,
    values,
    ...(replan === true ? { replan } : {}),
  };
}

function stageLines(split: SplitSpec, open: OpenSplit, placed: readonly PlacedReplica[]): readonly string[] {
  if (placed.length > 0) return placed.map(placementLine);
  return split.shards.map(({ memoryBytes }, shard) => {
    const nodes = open.shards[shard]?.nodes ?? 0;
    return `stage ${shard + 1} of ${split.shards.length}: ${nodes} nodes, ${formatBytes(memoryBytes)}`;
  });
}
