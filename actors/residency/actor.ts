/**
 * Plans again and again which models live where, for deployments that ask for it. On every host it says in the store what is
 * asked of the devices there; where the leader is, it plans at its interval and soon after hosts come or go, and writes the
 * deployments that are better served elsewhere, which moves copies by ordinary rollouts.
 *
 * What a plan is, is decided in policies/residency. A deployment is written only as it was read, and only by whoever leads: an
 * operator's word in between wins. Nothing is remembered from lead to lead; the next leader begins from what is assigned.
 */
import { asIntarsiaError } from '#core/errors.js';
import { demandFromText, demandToText, type DemandRow } from '#core/grid/demand.js';
import { deploymentToText } from '#core/grid/deployment-file.js';
import { DesiredState, prefixOf, type Folder } from '#core/grid/desired-state.js';
import type { GridKeys } from '#core/grid/keys.js';
import { emptyView, type Deployment, type View } from '#core/grid/records.js';
import type { HostId } from '#core/ids.js';
import {
  deploymentAt,
  planGridResidency,
  type GridResidency,
  type GridResidencyInput,
  type PlannedDeployment,
} from '#policies/residency/residency-grid.js';
import type { LinearSolver } from '#ports/linear-solver.js';
import type { Store } from '#ports/store.js';
import type { ElectionMessage, Leadership } from '#actors/election/protocol.js';
import type { MembershipMessage, ViewNews } from '#actors/membership/protocol.js';
import type { Actor, ActorContext, ActorFactory, ActorRef, ReplyTo, Signal } from '#runtime/actor.js';

export interface ResidencyOptions {
  readonly host: HostId;
  readonly store: Store;
  readonly keys: GridKeys;
  readonly election: ActorRef<ElectionMessage>;
  readonly membership: ActorRef<MembershipMessage>;
  /** What was asked of this host's devices since the last time. */
  readonly demand: () => Promise<readonly DemandRow[]>;
  /** Loaded when it is needed first. */
  readonly solver: () => Promise<LinearSolver>;
  /** Between two looks, ms. 5,000 to 60,000. Lower: follows demand sooner, from fewer requests. */
  readonly everyMs: number;
}

export type ResidencyInbox =
  | { readonly type: 'leadership'; readonly leadership: Leadership }
  | { readonly type: 'view-news'; readonly news: ViewNews }
  | { readonly type: 'look'; readonly isExtra: boolean }
  | { readonly type: 'looked'; readonly isExtra: boolean };

type Lead = Extract<Leadership, { readonly leading: true }>;

const callMs = 5_000;
/** Of several changes of membership one look is taken, so long after the first. */
const gatherMs = 1_000;
const readFolders: readonly Folder[] = ['deployments', 'assignments', 'actual', 'models'];

/** Spawn one on each host, as `residency`, after `membership` and `election`. */
export function residencyActor(options: ResidencyOptions): ActorFactory<ResidencyInbox> {
  return (context) => new Residency(options, context);
}

class Residency implements Actor<ResidencyInbox> {
  readonly #options: ResidencyOptions;
  readonly #context: ActorContext<ResidencyInbox>;
  readonly #leadSubscriber: ReplyTo<Leadership>;
  readonly #viewSubscriber: ReplyTo<ViewNews>;
  #lead: Lead | undefined;
  #view: View = emptyView;
  #isExtraDue = false;
  #isLooking = false;
  #told = '';
  /** What was advised of each deployment, so that it is said once. */
  readonly #advised = new Map<string, string>();

  constructor(options: ResidencyOptions, context: ActorContext<ResidencyInbox>) {
    this.#options = options;
    this.#context = context;
    const { self } = context;
    this.#leadSubscriber = { tell: (leadership) => self.tell({ type: 'leadership', leadership }) };
    this.#viewSubscriber = { tell: (news) => self.tell({ type: 'view-news', news }) };
    options.election.tell({ type: 'subscribe', subscriber: this.#leadSubscriber });
    options.membership.tell({ type: 'subscribe', subscriber: this.#viewSubscriber });
    this.#lookIn(options.everyMs, false);
  }

  receive(message: ResidencyInbox): void {
    switch (message.type) {
      case 'leadership':
        this.#onLeadership(message.leadership);
        return;
      case 'view-news': {
        const isOther = message.news.view.revision !== this.#view.revision;
        this.#view = message.news.view;
        if (isOther) this.#lookSoon();
        return;
      }
      case 'look':
        if (message.isExtra) this.#isExtraDue = false;
        this.#begin(message.isExtra);
        return;
      case 'looked':
        this.#isLooking = false;
        if (!message.isExtra) this.#lookIn(this.#options.everyMs, false);
    }
  }

  signal(signal: Signal): void {
    if (signal.type === 'drain') this.#context.stop();
    if (signal.type !== 'post-stop' && signal.type !== 'pre-restart') return;
    this.#options.election.tell({ type: 'unsubscribe', subscriber: this.#leadSubscriber });
    this.#options.membership.tell({ type: 'unsubscribe', subscriber: this.#viewSubscriber });
  }

  #onLeadership(leadership: Leadership): void {
    if (leadership.leading && leadership.epoch === this.#lead?.epoch) return;
    this.#lead = leadership.leading ? leadership : undefined;
    this.#advised.clear();
    this.#lookSoon();
  }

  #lookSoon(): void {
    if (this.#lead === undefined || this.#isExtraDue) return;
    this.#isExtraDue = true;
    this.#lookIn(gatherMs, true);
  }

  #lookIn(delayMs: number, isExtra: boolean): void {
    this.#context.schedule(delayMs, { type: 'look', isExtra });
  }

  #begin(isExtra: boolean): void {
    if (this.#isLooking) {
      this.#lookIn(gatherMs, isExtra);
      return;
    }
    this.#isLooking = true;
    this.#context.pipeToSelf(
      this.#look(isExtra),
      () => ({ type: 'looked', isExtra }),
      (thrown) => {
        this.#context.log.warn('residency could not be looked at', { reason: asIntarsiaError(thrown).message });
        return { type: 'looked', isExtra };
      },
    );
  }

  get #until(): { readonly deadlineMs: number } {
    return { deadlineMs: this.#context.clock.nowMs() + callMs };
  }

  /** A look between two intervals goes by the demand of the last one. */
  async #look(isExtra: boolean): Promise<void> {
    if (!isExtra) await this.#tellDemand();
    const lead = this.#lead;
    if (lead === undefined) return;
    const { input, revisions } = await this.#read();
    if (input.deployments.length === 0) return;
    const planned = planGridResidency(input, await this.#options.solver());
    for (const change of planned.changes) await this.#write(change, planned, lead, revisions);
  }

  async #read(): Promise<{ readonly input: GridResidencyInput; readonly revisions: ReadonlyMap<string, number> }> {
    const { store, keys } = this.#options;
    const state = new DesiredState(keys, (text) => this.#context.log.warn(text));
    const revisions = new Map<string, number>();
    for (const folder of readFolders) {
      const { entries } = await store.range(prefixOf(keys, folder), this.#until);
      for (const entry of entries) {
        state.set(folder, entry.key, entry);
        revisions.set(entry.key, entry.modRevision);
      }
    }
    const deployments = [...state.deployments.values()].flatMap(({ deployment }) => {
      if (!isPlanned(deployment)) return [];
      const { model, version, memoryBytes } = deployment;
      const bytes = memoryBytes > 0 ? memoryBytes : state.manifestOf(model, version)?.memoryBytes;
      return bytes === undefined ? [] : [{ deployment, bytes }];
    });
    const said = await store.range(keys.demand, this.#until);
    const demand = said.entries.flatMap(({ key, value }) => {
      const { host, rows } = demandFromText(value, key);
      return rows.map((row) => ({ ...row, host }));
    });
    const input = {
      ...{ view: this.#view, deployments, demand },
      assignments: [...state.assignments.values()],
      actuals: [...state.actuals.values()],
    };
    return { input, revisions };
  }

  /** Rounded, so that a grid that is asked the same says nothing new. */
  async #tellDemand(): Promise<void> {
    const { store, keys, host } = this.#options;
    const rows = (await this.#options.demand()).map((row) => ({
      ...row,
      itemsPerSecond: Number(row.itemsPerSecond.toPrecision(2)),
      msPerItem: Number(row.msPerItem.toPrecision(2)),
    }));
    const text = demandToText({ host, rows });
    if (text === this.#told || (rows.length === 0 && this.#told === '')) return;
    const put = { type: 'put', key: `${keys.demand}${host}`, value: text } as const;
    await store.transact({ conditions: [], operations: [put] }, this.#until);
    this.#told = text;
  }

  async #write(
    { deployment, places }: GridResidency['changes'][number],
    { keptUsd, usd, baselineUsd }: GridResidency,
    { fence }: Lead,
    revisions: ReadonlyMap<string, number>,
  ): Promise<void> {
    const { name, residency } = deployment;
    const where = places.map(({ host, device }) => `${host}/${device}`).join(', ');
    const facts = { deployment: name, places: where, keptUsd, usd, baselineUsd };
    if (residency.advise === true) {
      if (this.#advised.get(name) !== where) this.#context.log.info('residency would be better', facts);
      this.#advised.set(name, where);
      return;
    }
    const key = this.#options.keys.deployment(name);
    const { ok } = await this.#options.store.transact(
      {
        conditions: [fence, { key, test: 'modRevision', equals: revisions.get(key) ?? 0 }],
        operations: [{ type: 'put', key, value: deploymentToText(deploymentAt(deployment, places)) }],
      },
      this.#until,
    );
    if (ok) this.#context.log.info('residency planned', facts);
  }
}

function isPlanned(deployment: Deployment): deployment is PlannedDeployment {
  return deployment.residency !== undefined;
}
