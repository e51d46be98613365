/**
 * One deployment at one look: which of its copies stay, which leave, which are placed anew, and what its rollout does.
 */
import { avoidKey, formField, startingCopy, type BrokenCopy, type Copy } from './copies.js';
import { shardEdition } from './placement.js';
import type { Gang, PlacementRequest, PlacementSearch, PlacementTable } from './placement.js';
import type { FormsOf } from './placement-forms.js';
import { placementRefusals, refusalsText, shardRefusals, type Refusal } from './placement-refusals.js';
import { isDeviceAllowed, isHostAllowed } from './placement-rules.js';
import type { MemoryDraft, ReconcileOptions } from './reconcile-memory.js';
import type { Deployment, Edition, RolloutRecord, Tier } from './records.js';
import { editionText, isSameEdition, rolloutStep, wantedEdition, type RolloutStep } from './rollout.js';
import { Mending } from './shard-mending.js';

export interface DeploymentPlanInput {
  readonly deployment: Deployment;
  readonly revision: number;
  readonly record: RolloutRecord | undefined;
  readonly copies: readonly Copy[];
  readonly broken: readonly BrokenCopy[];
  readonly table: PlacementTable;
  readonly draft: MemoryDraft;
  readonly options: ReconcileOptions;
  /** Bytes of a copy; undefined when no host has published the files. */
  readonly bytesOf: (edition: Edition) => number | undefined;
  /** Forms that a copy of an edition may have, where it is whole and has variants. */
  readonly formsOf: (edition: Edition) => FormsOf | undefined;
  /** Why no copy of an edition may be placed, whatever room there is; empty when it may. */
  readonly refusalOf: (edition: Edition) => string;
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
  readonly #mending: Mending;
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
    this.#mending = new Mending({ ...input, nextReplica: () => this.#takeNumber() });
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
    const serving = servingEdition(step.record);
    const isServed = kept.flat().some(({ edition }) => isSameEdition(edition, serving));
    const standbys = isServed ? this.#mending.settle(serving) : [];
    for (const refusal of this.#mending.refusals) this.#addRefusal(refusal);
    let readyMissing = 0;
    for (const [index, { wanted }] of this.#groups.entries()) {
      readyMissing += Math.max(0, wanted - (kept[index] ?? []).filter(isReady).length);
    }
    const leavingMost = Math.max(readyMissing, this.#unplaced);
    const leaving = this.#leaving.sort(byUse).slice(0, leavingMost);
    draft.refused(deployment.name, this.#refusal);
    const copies = [...kept.flat(), ...standbys, ...leaving];
    const isMoving = this.#isMoving || this.#mending.isMoving;
    const isCalm = step.record.phase === 'complete' && readyMissing === 0 && leaving.length === 0 && !isMoving;
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

  /** Copies into those that stay, by group, and those that have to leave. What is left of broken ones is made whole. */
  #sort(): void {
    const { copies, broken, deployment, record } = this.#input;
    const editions = [wantedEdition(deployment), record?.stable, record?.target];
    const repaired = broken
      .filter(({ edition }) => editions.some((one) => isSameEdition(one, edition)))
      .filter(({ edition }) => this.#input.refusalOf(edition) === '')
      .flatMap((one) => this.#mending.repair(this.#newest(one)) ?? []);
    const present = copies.filter(({ standby }) => standby === undefined).map((copy) => this.#newest(copy));
    for (const copy of [...present, ...repaired]) {
      if (copy.edition.split === undefined) this.#sortWhole(copy);
      else this.#sortSplit(copy);
    }
  }

  #sortWhole(copy: Copy): void {
    const { deployment } = this.#input;
    const index = this.#groups.findIndex(({ tier }) => isAllowed(copy, deployment, tier));
    const group = this.#staying[index];
    // A copy that failed stays until it is known that there is a better place.
    if (group === undefined || (copy.isToMove && !copy.isTainted)) this.#leaving.push(copy);
    else group.push(copy);
  }

  /** Shards that should be elsewhere move one by one, so the copy stays. */
  #sortSplit(copy: Copy): void {
    const mended = this.#mending.mend(copy);
    const isOf = (tier: Tier | undefined): boolean =>
      tier === undefined || mended.places.every(({ host }) => host.view.record.tier === tier);
    const group = this.#staying[this.#groups.findIndex(({ tier }) => isOf(tier))];
    if (group === undefined) this.#leaving.push(mended);
    else group.push(mended);
  }

  /** With what the deployment says now about its split: constraints and standbys may have changed. */
  #newest<Thing extends Copy | BrokenCopy>(thing: Thing): Thing {
    const wanted = wantedEdition(this.#input.deployment);
    return wanted.split !== undefined && isSameEdition(thing.edition, wanted) ? { ...thing, edition: wanted } : thing;
  }

  #step(): RolloutStep {
    const { deployment, revision, record, draft } = this.#input;
    const target = wantedEdition(deployment);
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
    // Shards that failed move one by one.
    const isWhole = edition.split === undefined;
    const sound = own.filter(({ isTainted }) => !isTainted || !isWhole);
    const tainted = own.filter(({ isTainted }) => isTainted && isWhole);
    const bytes = this.#input.refusalOf(edition) === '' ? this.#input.bytesOf(edition) : undefined;
    if (wanted === 0) {
      this.#leaving.push(...own);
      return [];
    }
    const isFull = own.length === wanted && tainted.length === 0;
    const mayMove =
      isFull &&
      isWhole &&
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
        this.#refuse(missing - placed, edition, request);
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
    const forms = this.#input.formsOf(edition);
    return {
      edition: editionText(edition),
      ...(forms === undefined ? {} : { forms }),
      shardBytes: edition.split?.shards.map(({ memoryBytes }) => memoryBytes) ?? [bytes],
      constraints: deployment.constraints,
      ...(edition.split === undefined
        ? {}
        : { shardConstraints: edition.split.shards.map(({ constraints }) => constraints) }),
      tier: group.tier,
      spread: deployment.spread,
      placed: own.flatMap(({ places }) => [...new Set(places.map(({ host }) => host))]),
      isAvoided: (device, shard) =>
        isElsewhere(edition.split?.shards[shard]?.prefer, device) ||
        (draft.hasAvoided && draft.isAvoided(avoidKey({ ...edition, shard }, device))),
    };
  }

  #newCopy(edition: Edition, places: Gang): Copy {
    const form = edition.split === undefined ? places[0]?.editions.get(editionText(edition))?.form : undefined;
    return { ...startingCopy(this.#input.deployment.name, this.#takeNumber(), edition, places), ...formField(form) };
  }

  #takeNumber(): number {
    this.#nextReplica += 1;
    return this.#nextReplica - 1;
  }

  #refuse(copies: number, edition: Edition, request: PlacementRequest): void {
    const { table, refusalOf } = this.#input;
    this.#unplaced += copies;
    const what = `${copies} ${copies === 1 ? 'copy' : 'copies'} of ${editionText(edition)}`;
    const forbidden = refusalOf(edition);
    if (forbidden !== '') this.#addRefusal(`${what} cannot be placed: ${forbidden}`);
    else if (edition.split === undefined) {
      const refusals = placementRefusals(table.hosts, request);
      this.#addRefusal(`${what} ${neverText(refusals)}: ${refusalsText(refusals)}`);
    } else this.#addRefusal(`${what} ${this.#shardTrouble(request)}`);
  }

  /** Which shard fits nowhere, with what every host has against it. */
  #shardTrouble(request: PlacementRequest): string {
    const { table } = this.#input;
    const { shardBytes } = request;
    for (const shard of shardBytes.keys()) {
      const alone = table.search({
        ...request,
        edition: shardEdition(request.edition, shard, shardBytes.length),
        shardBytes: [shardBytes[shard] ?? 0],
        shardConstraints: [request.shardConstraints?.[shard]],
        isAvoided: (device) => request.isAvoided(device, shard),
      });
      if (alone.couldPlace()) continue;
      const refusals = shardRefusals(table.hosts, request, shard);
      return `${neverText(refusals)}: stage ${shard + 1} of ${shardBytes.length}: ${refusalsText(refusals)}`;
    }
    const largest = shardBytes.indexOf(Math.max(...shardBytes));
    const refusals = shardRefusals(table.hosts, request, largest);
    return `cannot be placed now: each of its ${shardBytes.length} stages has a place alone, but not all at once; stage ${largest + 1}, the largest with ${shardBytes[largest] ?? 0} bytes: ${refusalsText(refusals)}`;
  }

  #addRefusal(text: string): void {
    this.#refusal = (this.#refusal === '' ? text : `${this.#refusal}; ${text}`).slice(0, reasonLengthMax);
  }
}

/** A shard that would rather be at another place. */
function isElsewhere(prefer: string | undefined, { host, device }: Gang[number]): boolean {
  return prefer !== undefined && prefer !== `${host.host}/${device.id}`;
}

function neverText(refusals: readonly Refusal[]): string {
  return refusals.every(({ isFinal }) => isFinal) ? 'can never fit' : 'cannot be placed now';
}

/** What serves for certain: the target once it is complete, what served before until then. */
function servingEdition({ phase, stable, target }: RolloutRecord): Edition {
  return phase === 'complete' ? target : (stable ?? target);
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
