/**
 * One deployment at one look: which of its copies stay, which leave, which are placed anew, and what its rollout does.
 */
import { avoidKey, type Copy } from './copies.js';
import { isDeviceAllowed, isHostAllowed, refusalsText } from './placement.js';
import type { Gang, PlacementRequest, PlacementSearch, PlacementTable } from './placement.js';
import type { MemoryDraft, ReconcileOptions } from './reconcile-memory.js';
import type { Deployment, Edition, RolloutRecord, Tier } from './records.js';
import { editionText, isSameEdition, rolloutStep, type RolloutStep } from './rollout.js';

export interface DeploymentPlanInput {
  readonly deployment: Deployment;
  readonly revision: number;
  readonly record: RolloutRecord | undefined;
  readonly copies: readonly Copy[];
  readonly table: PlacementTable;
  readonly draft: MemoryDraft;
  readonly options: ReconcileOptions;
  /** Bytes of a copy; undefined when no host has published the files. */
  readonly bytesOf: (edition: Edition) => number | undefined;
}

export interface DeploymentPlan {
  readonly deployment: Deployment;
  readonly record: RolloutRecord;
  /** All copies it should have now, those that are on their way out included. */
  readonly copies: readonly Copy[];
  /** It is complete: every copy is ready and none is on its way. */
  readonly isCalm: boolean;
  readonly events: RolloutStep['events'];
}

/** Copies counted together: those of one tier, or all. */
interface Group {
  readonly tier: Tier | undefined;
  readonly wanted: number;
}

const reasonLengthMax = 2_000;

export function planDeployment(input: DeploymentPlanInput): DeploymentPlan {
  return new Planner(input).plan();
}

/** The groups of a deployment and how many copies each should have. */
export function groupsOf({ replicas, replicasPerTier }: Deployment): readonly Group[] {
  if (replicasPerTier === undefined) return [{ tier: undefined, wanted: replicas ?? 0 }];
  const tiers: readonly Tier[] = ['edge', 'regional', 'core'];
  return tiers.flatMap((tier) => {
    const wanted = replicasPerTier[tier] ?? 0;
    return wanted > 0 ? [{ tier, wanted }] : [];
  });
}

class Planner {
  readonly #input: DeploymentPlanInput;
  readonly #groups: readonly Group[];
  readonly #staying: Copy[][];
  readonly #leaving: Copy[] = [];
  #nextReplica: number;
  #unplaced = 0;
  #refusal = '';
  #isMoving = false;

  constructor(input: DeploymentPlanInput) {
    this.#input = input;
    this.#groups = groupsOf(input.deployment);
    this.#staying = this.#groups.map(() => []);
    this.#nextReplica = input.record?.nextReplica ?? 0;
    for (const { replica } of input.copies) this.#nextReplica = Math.max(this.#nextReplica, replica + 1);
  }

  plan(): DeploymentPlan {
    const { deployment, draft, record: before } = this.#input;
    draft.keepMoved(deployment.name);
    this.#sort();
    const step = this.#step();
    const { stable, target } = step.record;
    const kept = this.#groups.map((group, index) => {
      const want = step.wants[index] ?? { target: 0, stable: 0 };
      const staying = this.#staying[index] ?? [];
      this.#staying[index] = [];
      const copies = [...this.#fill(group, target, want.target, staying)];
      if (stable !== undefined && !isSameEdition(stable, target)) {
        copies.push(...this.#fill(group, stable, want.stable, staying));
      }
      for (const copy of staying) {
        if (!isSameEdition(copy.edition, target) && !isSameEdition(copy.edition, stable)) this.#leaving.push(copy);
      }
      return copies;
    });
    let readyMissing = 0;
    for (const [index, { wanted }] of this.#groups.entries()) {
      readyMissing += Math.max(0, wanted - (kept[index] ?? []).filter(isReady).length);
    }
    const leavingMost = Math.max(readyMissing, this.#unplaced);
    const leaving = this.#leaving.sort(byUse).slice(0, leavingMost);
    draft.refused(deployment.name, this.#refusal);
    const copies = [...kept.flat(), ...leaving];
    const isCalm = step.record.phase === 'complete' && readyMissing === 0 && leaving.length === 0 && !this.#isMoving;
    const record: RolloutRecord = {
      ...step.record,
      nextReplica: this.#nextReplica,
      reason:
        step.record.phase === 'complete' || (step.record.phase === 'progressing' && before !== undefined)
          ? this.#trouble(this.#refusal)
          : step.record.reason,
    };
    if (record.phase === 'progressing') {
      const quarterMs = deployment.rollout.progressMsMax / 4;
      draft.review(draft.nowMs + quarterMs - (record.waitedMs % quarterMs));
    }
    return { deployment, record, copies, isCalm, events: [...step.events, ...this.#placementEvents()] };
  }

  #placementEvents(): RolloutStep['events'] {
    const { deployment, draft } = this.#input;
    const before = draft.refusalOf(deployment.name);
    if ((before === '') === (this.#refusal === '')) return [];
    return this.#refusal === ''
      ? [{ level: 'info', text: 'every copy has a place again' }]
      : [{ level: 'warn', text: this.#refusal }];
  }

  /** Copies into those that stay, by group, and those that have to leave. */
  #sort(): void {
    const { copies, deployment } = this.#input;
    for (const copy of copies) {
      const index = this.#groups.findIndex(({ tier }) => isAllowed(copy, deployment, tier));
      const group = this.#staying[index];
      // A copy that failed stays until it is known that there is a better place.
      if (group === undefined || (copy.isToMove && !copy.isTainted)) this.#leaving.push(copy);
      else group.push(copy);
    }
  }

  #step(): RolloutStep {
    const { deployment, revision, record, draft } = this.#input;
    const { model, version } = deployment;
    const target: Edition = { model, version };
    const stable = isSameEdition(record?.stable, target) ? undefined : record?.stable;
    const groups = this.#groups.map(({ wanted }, index) => {
      const staying = this.#staying[index] ?? [];
      const ofTarget = staying.filter(({ edition }) => isSameEdition(edition, target));
      return {
        wanted,
        target: ofTarget.length,
        targetReady: ofTarget.filter(isReady).length,
        stable: staying.filter(({ edition }) => isSameEdition(edition, stable)).length,
      };
    });
    const mark = record === undefined ? '' : `${editionText(record.target)} ${record.phase} ${record.readyMost}`;
    const waitedMs = draft.waitedMs(deployment.name, mark, record?.waitedMs ?? 0);
    return rolloutStep({
      deployment,
      deploymentRevision: revision,
      record,
      groups,
      waitedMs,
      trouble: this.#trouble(draft.refusalOf(deployment.name)),
    });
  }

  /** What keeps copies from being ready, as far as is known. */
  #trouble(refusal: string): string {
    const failed = this.#input.copies.filter(({ state }) => state === 'failed').map(({ reason }) => reason);
    return [...failed.slice(0, 4), ...(refusal === '' ? [] : [refusal])].join('; ').slice(0, reasonLengthMax);
  }

  /** The copies of one edition in one group: those that stay and new ones, as many as wanted. */
  #fill(group: Group, edition: Edition, wanted: number, staying: readonly Copy[]): readonly Copy[] {
    const { deployment } = this.#input;
    const own = staying.filter((copy) => isSameEdition(copy.edition, edition));
    const sound = own.filter(({ isTainted }) => !isTainted);
    const tainted = own.filter(({ isTainted }) => isTainted);
    const bytes = this.#input.bytesOf(edition);
    if (wanted === 0) {
      this.#leaving.push(...own);
      return [];
    }
    const isFull = own.length === wanted && tainted.length === 0;
    const mayMove =
      isFull &&
      deployment.spread !== 'none' &&
      own.every((copy) => isReady(copy)) &&
      this.#leaving.length === 0 &&
      isCrowded(own, deployment.spread);
    if (isFull && !mayMove) return own;
    const request = this.#request(group, edition, bytes ?? 0, own);
    const search = this.#input.table.search(request);
    if (mayMove) return this.#improve(own, edition, search, bytes);
    if (own.length > wanted) return this.#shrink(own, wanted, search);
    const copies = [...sound];
    const missing = wanted - own.length;
    for (let placed = 0; placed < missing; placed += 1) {
      const gang = bytes === undefined ? undefined : search.place();
      if (gang === undefined) {
        this.#refuse(missing - placed, edition, request, bytes);
        break;
      }
      copies.push(this.#newCopy(edition, gang));
    }
    // Copies that failed where they are: each moves when there is a place where none has failed lately.
    for (const copy of tainted) {
      const gang = bytes === undefined ? undefined : search.place(false);
      if (gang === undefined) {
        copies.push(copy);
        continue;
      }
      this.#leaving.push(copy);
      copies.push(this.#newCopy(edition, gang));
    }
    return copies;
  }

  /** Starts one copy in an emptier domain when a crowded one has two more; the surplus leaves once it is ready. */
  #improve(
    own: readonly Copy[],
    edition: Edition,
    search: PlacementSearch,
    bytes: number | undefined,
  ): readonly Copy[] {
    const { deployment, draft, options } = this.#input;
    const most = own.reduce((sofar, copy) => Math.max(sofar, besideOf(copy, search)[0]), 0);
    // Short of two copies more, a move makes one domain as crowded as the other was.
    if (most < 2 || bytes === undefined || most - search.leastCrowded() < 2) return own;
    if (!draft.mayMove(deployment.name, options.moveMsMin)) return own;
    const gang = search.place(false);
    if (gang === undefined) return own;
    draft.moved(deployment.name);
    this.#isMoving = true;
    return [...own, this.#newCopy(edition, gang)];
  }

  /** Gives up copies one after the other, the least useful first, and no ready one while fewer than wanted would be left. */
  #shrink(own: readonly Copy[], wanted: number, search: PlacementSearch): readonly Copy[] {
    const left = [...own];
    let ready = left.filter(isReady).length;
    while (left.length > wanted) {
      left.sort((a, b) => byRemoval(a, b, search));
      const [first] = left;
      if (first === undefined) break;
      if (isReady(first)) {
        if (ready - 1 < wanted) {
          this.#isMoving = true;
          break;
        }
        ready -= 1;
      }
      left.shift();
      for (const { host } of first.places) search.leave(host);
    }
    return left;
  }

  #request(group: Group, edition: Edition, bytes: number, own: readonly Copy[]): PlacementRequest {
    const { deployment, draft } = this.#input;
    return {
      edition: editionText(edition),
      shardBytes: [bytes],
      constraints: deployment.constraints,
      tier: group.tier,
      spread: deployment.spread,
      placed: own.flatMap(({ places }) => places.map(({ host }) => host)),
      isAvoided: (device) => draft.hasAvoided && draft.isAvoided(avoidKey(edition, device)),
    };
  }

  #newCopy(edition: Edition, places: Gang): Copy {
    const replica = this.#nextReplica;
    this.#nextReplica += 1;
    return {
      deployment: this.#input.deployment.name,
      replica,
      edition,
      places,
      state: 'starting',
      reason: '',
      isSuspected: false,
      isToMove: false,
      isTainted: false,
    };
  }

  #refuse(copies: number, edition: Edition, request: PlacementRequest, bytes: number | undefined): void {
    const { table } = this.#input;
    this.#unplaced += copies;
    const what = `${copies} ${copies === 1 ? 'copy' : 'copies'} of ${editionText(edition)}`;
    let text: string;
    if (bytes === undefined) {
      text = `${what} cannot be placed: no host has published the files of that version`;
    } else {
      const refusals = table.refusals(request);
      const never = refusals.every(({ isFinal }) => isFinal) ? 'can never fit' : 'cannot be placed now';
      text = `${what} ${never}: ${refusalsText(refusals)}`;
    }
    this.#refusal = (this.#refusal === '' ? text : `${this.#refusal}; ${text}`).slice(0, reasonLengthMax);
  }
}

function isReady({ state }: Copy): boolean {
  return state === 'ready';
}

function isAllowed({ places }: Copy, { constraints }: Deployment, tier: Tier | undefined): boolean {
  return places.every(
    ({ host, device }) => isHostAllowed(host.view, constraints, tier) && isDeviceAllowed(device, constraints),
  );
}

/** Whether two copies are in one domain. */
function isCrowded(copies: readonly Copy[], spread: Deployment['spread']): boolean {
  const domains = new Set<string>();
  for (const { places } of copies) {
    const host = places[0]?.host;
    if (host !== undefined) domains.add(spread === 'zone' ? host.view.record.zone : host.host);
  }
  return domains.size < copies.length;
}

/** Of copies that leave: those that serve are kept longest. */
function byUse(one: Copy, other: Copy): number {
  const use = ({ state, isSuspected }: Copy): number => (state === 'ready' ? 0 : isSuspected ? 1 : 2);
  return use(one) - use(other) || one.replica - other.replica;
}

function byRemoval(one: Copy, other: Copy, search: PlacementSearch): number {
  const failed = Number(other.state === 'failed') - Number(one.state === 'failed');
  if (failed !== 0) return failed;
  const [domain, host] = besideOf(one, search);
  const [otherDomain, otherHost] = besideOf(other, search);
  const ready = Number(isReady(one)) - Number(isReady(other));
  return otherDomain - domain || otherHost - host || ready || other.replica - one.replica;
}

function besideOf({ places }: Copy, search: PlacementSearch): readonly [number, number] {
  const [first] = places;
  return first === undefined ? [0, 0] : search.copiesBeside(first.host);
}
