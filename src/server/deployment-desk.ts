/**
 * Deployments as operators write them: what they would change, where their copies would be and why they would find no place,
 * splits that are made and compared first, and the writes to the store by compare-and-swap. Whoever leads carries them out.
 */
import { intarsiaError } from '#core/errors.js';
import { deploymentsOfFile, deploymentToText, type WantedDeployment } from '#core/grid/deployment-file.js';
import type { DesiredState } from '#core/grid/desired-state.js';
import { deploymentDifferences, differenceText } from '#core/grid/difference.js';
import { modelRecords } from '#core/grid/model-records.js';
import { placedReplicas, placementLine, type PlacedReplica } from '#core/grid/placement-lines.js';
import { withResidencyKept } from '#core/grid/residency-words.js';
import { reconcile } from '#core/grid/reconcile.js';
import { defaultReconcileOptions, emptyMemory } from '#core/grid/reconcile-memory.js';
import type { Deployment, ModelManifest, View } from '#core/grid/records.js';
import { editionText, wantedEdition } from '#core/grid/rollout.js';
import { variantVerificationText, type DescribedVariant } from '#core/grid/variant-verification.js';
import type { HostId, ModelName, ModelVersion } from '#core/ids.js';
import type { ModelConfig } from '#core/model-config.js';
import type { ServingStage } from '#core/split/replan.js';
import { whyNotSpread } from '#core/split/spread-rule.js';
import type { Clock } from '#ports/clock.js';
import type { DeployOutcome, GridCall, PreparedSplit } from '#ports/grid-admin.js';
import type { SplitGate } from '#ports/split-gate.js';
import type { StoreCallOptions } from '#ports/store.js';
import { changedMeanwhile, readDesired, storeDeadline, writeAttemptsMax, type StoreOfGrid } from './grid-reads.js';
import { SplitDesk } from './split-desk.js';

export interface DeploymentDeskOptions extends StoreOfGrid {
  readonly host: HostId;
  readonly clock: Clock;
  /** Makes and compares splits; absent: this host cannot. */
  readonly gate?: SplitGate;
  /** The files of a version in this host's own repository, loaded or not; undefined when it has none. */
  readonly describe?: (model: ModelName, version: ModelVersion) => Promise<ModelManifest | undefined>;
  /** Of such a version: its variants that were compared with it and are allowed. Default: none. */
  readonly variants?: (model: ModelName, version: ModelVersion) => Promise<readonly DescribedVariant[]>;
  /** The configuration of a version that this gateway knows as served; undefined when it knows none. */
  readonly configOf?: (model: ModelName, version: ModelVersion) => ModelConfig | undefined;
}

export class DeploymentDesk {
  readonly #options: DeploymentDeskOptions & { readonly view: () => View | undefined };
  readonly #splits: SplitDesk | undefined;

  /** @param view The newest view; undefined before the first. */
  constructor(options: DeploymentDeskOptions, view: () => View | undefined) {
    this.#options = { ...options, view };
    const { gate } = options;
    this.#splits = gate === undefined ? undefined : new SplitDesk({ ...options, gate });
  }

  async deploy(
    request: { readonly deploymentJson: string; readonly dryRun: boolean },
    call: GridCall,
  ): Promise<DeployOutcome> {
    const { splitWish, ...wanted } = parseDeployment(request.deploymentJson);
    if (splitWish !== undefined) {
      throw intarsiaError(
        'FAILED_PRECONDITION',
        'the split of the deployment is not made yet: PrepareSplit makes it',
        {},
      );
    }
    const { store, keys } = this.#options;
    const key = keys.deployment(wanted.name);
    this.#checkStrategy(wanted);
    await this.#offerFiles(wanted, call);
    for (let attempt = 1; attempt <= writeAttemptsMax; attempt += 1) {
      const state = await readDesired(this.#options, this.#until(call));
      const deployment = withResidencyKept(wanted, state.deployments.get(wanted.name)?.deployment);
      const known = new Map([...state.deployments].map(([name, desired]) => [name, desired.deployment]));
      const differences = deploymentDifferences(known, [deployment]);
      const { refusal, placed } = this.#place(state, deployment, request.dryRun);
      const outcome = {
        name: deployment.name,
        differences: differenceText(differences).split('\n'),
        refusals: refusal === '' ? [] : [refusal],
        placements: [...placed.map(placementLine), ...variantLines(state, deployment, placed)],
      };
      if (request.dryRun || refusal !== '') return { ...outcome, applied: false };
      const before = state.deployments.get(deployment.name);
      const { ok } = await store.transact(
        {
          conditions: [
            before === undefined ? { key, test: 'absent' } : { key, test: 'modRevision', equals: before.revision },
          ],
          operations: [{ type: 'put', key, value: deploymentToText(deployment) }],
        },
        this.#until(call),
      );
      if (ok) return { ...outcome, applied: true };
    }
    throw changedMeanwhile(`deployment ${wanted.name}`);
  }

  async prepareSplit(
    request: { readonly deploymentJson: string; readonly dryRun: boolean },
    call: GridCall,
    onProgress: (share: number, words: string) => void,
  ): Promise<PreparedSplit> {
    const wanted = parseDeployment(request.deploymentJson);
    const { splitWish, model, version } = wanted;
    if (splitWish === undefined) {
      throw intarsiaError(
        'INVALID_ARGUMENT',
        `deployment ${wanted.name} says nothing of a split that is to be made`,
        {},
      );
    }
    if (this.#splits === undefined) throw intarsiaError('UNIMPLEMENTED', 'this host cannot compare splits', {});
    await this.#offerFiles(wanted, call);
    const state = await readDesired(this.#options, this.#until(call));
    const manifest = state.manifestOf(model, version);
    if (manifest === undefined) throw intarsiaError('MODEL_NOT_FOUND', noFiles(wanted), { model, version });
    return await this.#splits.prepare({
      wanted: { ...wanted, splitWish },
      dryRun: request.dryRun,
      manifest,
      place: (deployment) => this.#place(state, deployment, true),
      known: (split) => state.verificationOf(model, version, split),
      deadlineMs: call.deadlineMs,
      onProgress,
    });
  }

  /**
   * A deployment that is in pieces, cut anew for the times that its stages show; undefined when no cut is better by a tenth.
   * Nothing is applied. @throws as `prepareSplit`, and FAILED_PRECONDITION when what would be better is refused.
   */
  async planAgain(
    deployment: Deployment,
    stages: readonly ServingStage[],
    call: Pick<GridCall, 'deadlineMs'>,
  ): Promise<Deployment | undefined> {
    const { model, version } = deployment;
    const state = await readDesired(this.#options, this.#until(call));
    const manifest = state.manifestOf(model, version);
    if (manifest === undefined || this.#splits === undefined) return undefined;
    return await this.#splits.planAgain({
      ...{ deployment, stages, manifest },
      place: (wanted) => this.#place(state, wanted, true),
      known: (split) => state.verificationOf(model, version, split),
      deadlineMs: call.deadlineMs,
    });
  }

  async undeploy({ name }: { readonly name: string }, call: GridCall): Promise<{ readonly replicas: number }> {
    const { store, keys } = this.#options;
    const state = await readDesired(this.#options, this.#until(call));
    const desired = state.deployments.get(name);
    if (desired === undefined) {
      throw intarsiaError('NOT_FOUND', `there is no deployment ${JSON.stringify(name.slice(0, 80))}`, {});
    }
    const key = keys.deployment(name);
    const { ok } = await store.transact(
      {
        conditions: [{ key, test: 'modRevision', equals: desired.revision }],
        operations: [{ type: 'delete', key }],
      },
      this.#until(call),
    );
    if (!ok) throw changedMeanwhile(`deployment ${name}`);
    const replicas = [...state.assignments.values()].flatMap((assignment) => assignment.replicas);
    return { replicas: replicas.filter(({ deployment }) => deployment === name).length };
  }

  /** @throws INVALID_ARGUMENT for a strategy that the model's configuration makes impossible, as far as it is known here. */
  #checkStrategy({ name, model, version, strategy }: Deployment): void {
    const config = strategy === 'data' ? this.#options.configOf?.(model, version) : undefined;
    const why = config === undefined ? '' : whyNotSpread(config);
    if (why === '') return;
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `deployment ${name}: strategy: 'data' is not possible for ${model}/${version}, because ${why}; it may be 'pipeline' or 'auto'`,
      { model, version },
    );
  }

  /** Hosts publish what they serve. What this one only has on disk is published once a deployment asks for it. */
  async #offerFiles({ model, version }: Deployment, call: GridCall): Promise<void> {
    const { store, keys, describe, variants, host, clock } = this.#options;
    const key = keys.model(model, version);
    if (describe === undefined || (await store.get(key, this.#until(call))).entry !== undefined) return;
    const manifest = await describe(model, version);
    if (manifest === undefined) return;
    const found = (await variants?.(model, version)) ?? [];
    const records = modelRecords({ keys, manifest, variants: found, host, wallMs: clock.wallMs() });
    await store.transact(
      {
        conditions: [{ key, test: 'absent' }],
        operations: records.map((record) => ({ type: 'put', key: record.key, value: record.value })),
      },
      this.#until(call),
    );
  }

  /**
   * Where the deployment would be, and why it as a whole can find no place now: empty when it can, or when it takes the
   * place of an older one. @param isTrial A split that the gate has not seen yet counts as one that it found equal.
   */
  #place(
    state: DesiredState,
    deployment: Deployment,
    isTrial: boolean,
  ): { readonly refusal: string; readonly placed: readonly PlacedReplica[] } {
    const { clock } = this.#options;
    const view = this.#options.view();
    if (view === undefined) return { refusal: 'this host has no view of the grid yet', placed: [] };
    if (state.manifestOf(deployment.model, deployment.version) === undefined) {
      return { refusal: noFiles(deployment), placed: [] };
    }
    const revision = (state.deployments.get(deployment.name)?.revision ?? 0) + 1;
    const output = reconcile({
      nowMs: clock.nowMs(),
      epoch: 0,
      view,
      deployments: new Map([...state.deployments, [deployment.name, { deployment, revision }]]),
      rollouts: state.rollouts,
      assignments: state.assignments,
      actuals: state.actuals,
      manifestOf: state.manifestOf,
      verificationOf: isTrial ? (): typeof trial => trial : state.verificationOf,
      variantsOf: state.variantsOf,
      memory: emptyMemory,
      options: defaultReconcileOptions,
    });
    const assignments = new Map(state.assignments);
    for (const [host, assignment] of output.assignments) {
      if (assignment === undefined) assignments.delete(host);
      else assignments.set(host, assignment);
    }
    const wanted = editionText(wantedEdition(deployment));
    const placed = placedReplicas(deployment.name, view, assignments);
    return {
      refusal: output.memory.refusals.get(deployment.name) ?? '',
      placed: placed.filter(({ replica }) => editionText(replica) === wanted),
    };
  }

  #until(call: StoreCallOptions): StoreCallOptions {
    return storeDeadline(this.#options.clock, call);
  }
}

/** What the gate found of the variants that copies are placed in. */
function variantLines(
  { variantsOf }: DesiredState,
  { model, version }: Deployment,
  placed: readonly PlacedReplica[],
): readonly string[] {
  const used = new Set(placed.map(({ replica }) => replica.form?.variant ?? ''));
  return variantsOf(model, version)
    .filter(({ name }) => used.has(name))
    .map(variantVerificationText);
}

/** What stands for the verdict on a split that is only tried. */
const trial = { verdict: 'equal' } as const;

function noFiles({ model, version }: Deployment): string {
  return `no host of the grid has model ${model} version ${version} in its repository`;
}

function parseDeployment(text: string): WantedDeployment {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch (error) {
    throw intarsiaError('INVALID_ARGUMENT', 'the deployment is not JSON', { length: text.length }, error);
  }
  const deployments = deploymentsOfFile(data, 'deployment');
  const [deployment] = deployments;
  if (deployment === undefined || deployments.length !== 1) {
    throw intarsiaError('INVALID_ARGUMENT', `one deployment is taken at a time; there are ${deployments.length}`, {});
  }
  return deployment;
}
