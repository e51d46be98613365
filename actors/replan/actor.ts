/**
 * Plans splits again that ask for it (`replan`). On every host it says in the store how long the stages there take; where
 * the leader is, it looks whether one drifts from what is expected of it, has the model cut anew for the speeds that its
 * devices show, and makes that desired, which moves shards by an ordinary rollout.
 *
 * When to plan is decided in core/split/replan.ts; what a new cut is and whether it equals the whole by who is handed in. A
 * deployment is written only as it was read, and only by whoever leads: an operator's word in between wins.
 */
import { asIntarsiaError } from '#core/errors.js';
import { deploymentFromText, deploymentToText } from '#core/grid/deployment-file.js';
import type { GridKeys } from '#core/grid/keys.js';
import type { Deployment, HostAssignment } from '#core/grid/records.js';
import type { HostId } from '#core/ids.js';
import {
  defaultDrift,
  driftStep,
  noDrift,
  type DriftOptions,
  type DriftState,
  type ServingStage,
} from '#core/split/replan.js';
import type { Store, StoreEntry } from '#ports/store.js';
import type { ElectionMessage, Leadership } from '#actors/election/protocol.js';
import type { Actor, ActorContext, ActorFactory, ActorRef, ReplyTo, Signal } from '#runtime/actor.js';

/** A shard on a device of a host. */
export interface StageRow {
  readonly split: string;
  readonly shard: number;
  readonly device: string;
  readonly expectedMs: number;
  readonly observedMs: number;
}

export interface ReplanOptions {
  readonly host: HostId;
  readonly store: Store;
  readonly keys: GridKeys;
  readonly election: ActorRef<ElectionMessage>;
  /** Of this host's devices, as far as enough has run. */
  readonly rows: () => readonly StageRow[];
  /** Undefined when no other cut is better. */
  readonly planAgain: (deployment: Deployment, stages: readonly ServingStage[]) => Promise<Deployment | undefined>;
  /** Between two looks, ms, default 10,000. */
  readonly everyMs?: number;
  readonly drift?: DriftOptions;
}

export type ReplanInbox =
  | { readonly type: 'leadership'; readonly leadership: Leadership }
  | { readonly type: 'look' }
  | { readonly type: 'looked' };

const everyMsDefault = 10_000;
const callMs = 5_000;

/** Spawn one on each host that may lead, as `replan`. */
export function replanActor(options: ReplanOptions): ActorFactory<ReplanInbox> {
  return (context) => new Replan(options, context);
}

class Replan implements Actor<ReplanInbox> {
  readonly #options: ReplanOptions;
  readonly #context: ActorContext<ReplanInbox>;
  readonly #subscriber: ReplyTo<Leadership>;
  #leadership: Extract<Leadership, { leading: true }> | undefined;
  #drifts = new Map<string, DriftState>();
  #written = '';

  constructor(options: ReplanOptions, context: ActorContext<ReplanInbox>) {
    this.#options = options;
    this.#context = context;
    const { self } = context;
    this.#subscriber = { tell: (leadership) => self.tell({ type: 'leadership', leadership }) };
    options.election.tell({ type: 'subscribe', subscriber: this.#subscriber });
    this.#lookLater();
  }

  receive(message: ReplanInbox): void {
    if (message.type === 'leadership') {
      const { leadership } = message;
      if (leadership.leading && leadership.epoch === this.#leadership?.epoch) return;
      this.#leadership = leadership.leading ? leadership : undefined;
      this.#drifts.clear();
    } else if (message.type === 'looked') this.#lookLater();
    else {
      this.#context.pipeToSelf(
        this.#look(),
        () => ({ type: 'looked' }),
        (thrown) => {
          this.#context.log.warn('splits could not be looked at', { reason: asIntarsiaError(thrown).message });
          return { type: 'looked' };
        },
      );
    }
  }

  signal(signal: Signal): void {
    if (signal.type === 'drain') this.#context.stop();
    if (signal.type !== 'post-stop' && signal.type !== 'pre-restart') return;
    this.#options.election.tell({ type: 'unsubscribe', subscriber: this.#subscriber });
  }

  #lookLater(): void {
    this.#context.schedule(this.#options.everyMs ?? everyMsDefault, { type: 'look' });
  }

  get #until(): { readonly deadlineMs: number } {
    return { deadlineMs: this.#context.clock.nowMs() + callMs };
  }

  async #look(): Promise<void> {
    const { store, keys, host } = this.#options;
    const rows = this.#options.rows().map((row) => ({ ...row, observedMs: Number(row.observedMs.toPrecision(2)) }));
    const text = JSON.stringify({ format: 1, host, rows });
    if (text !== this.#written && (rows.length > 0 || this.#written !== '')) {
      const put = { type: 'put', key: `${keys.stages}${host}`, value: text } as const;
      await store.transact({ conditions: [], operations: [put] }, this.#until);
      this.#written = text;
    }
    if (this.#leadership === undefined) return;
    const deployments = await store.range(keys.deployments, this.#until);
    const wanted = deployments.entries.flatMap((entry) => {
      const deployment = deploymentFromText(entry.value, entry.key);
      return deployment.split?.replan === true ? [{ entry, deployment }] : [];
    });
    for (const name of this.#drifts.keys()) {
      if (!wanted.some(({ deployment }) => deployment.name === name)) this.#drifts.delete(name);
    }
    if (wanted.length === 0) return;
    const assignments = await store.range(keys.assignments, this.#until);
    const stages = await store.range(keys.stages, this.#until);
    const rowsOf = new Map(stages.entries.flatMap(({ value }) => stageRows(value)));
    const assigned = assignments.entries.map(({ value }) => JSON.parse(value) as HostAssignment);
    for (const one of wanted) await this.#judge(one, servingStages(one.deployment, assigned, rowsOf));
  }

  async #judge(
    { entry, deployment }: { readonly entry: StoreEntry; readonly deployment: Deployment },
    stages: readonly (ServingStage & { readonly ratio: number | undefined })[],
  ): Promise<void> {
    const { drift = defaultDrift, planAgain, store } = this.#options;
    const { name } = deployment;
    const ratios = stages.map(({ ratio }) => ratio);
    const nowMs = this.#context.clock.nowMs();
    const { state, drifting } = driftStep(this.#drifts.get(name) ?? noDrift, ratios, nowMs, drift);
    this.#drifts.set(name, state);
    if (drifting.length === 0 || ratios.includes(undefined)) return;
    const said = stages.map(
      ({ place, ms, ratio }) => `${place} ${ms.toPrecision(3)} ms (${ratio?.toFixed(2)} of expected)`,
    );
    this.#context.log.warn('stages drift from what is expected', { deployment: name, stages: said.join(', ') });
    let better: Deployment | undefined;
    try {
      better = await planAgain(deployment, stages);
    } catch (thrown) {
      this.#context.log.warn('no better plan', { deployment: name, reason: asIntarsiaError(thrown).message });
      return;
    }
    const leadership = this.#leadership;
    if (better === undefined || leadership === undefined) {
      this.#context.log.info('no other cut is better', { deployment: name });
      return;
    }
    const { ok } = await store.transact(
      {
        conditions: [leadership.fence, { key: entry.key, test: 'modRevision', equals: entry.modRevision }],
        operations: [{ type: 'put', key: entry.key, value: deploymentToText(better) }],
      },
      this.#until,
    );
    if (ok) this.#context.log.info('planned again', { deployment: name, cuts: better.split?.cuts.join(',') ?? '' });
  }
}

/** The holders of the copies' stages, with what they take: of several the slowest. */
function servingStages(
  { name, split }: Deployment,
  assigned: readonly HostAssignment[],
  rowsOf: ReadonlyMap<string, StageRow>,
): readonly (ServingStage & { readonly ratio: number | undefined })[] {
  return (split?.shards ?? []).map((_, shard) => {
    const found = assigned.flatMap(({ host, replicas }) =>
      replicas
        .filter(
          (one) =>
            one.deployment === name && one.split?.id === split?.id && one.shard === shard && one.standby !== true,
        )
        .map(({ device }) => ({
          place: `${host}/${device}`,
          row: rowsOf.get(`${host} ${split?.id} ${shard} ${device}`),
        })),
    );
    const [slowest] = found.sort((a, b) => (b.row?.observedMs ?? 0) - (a.row?.observedMs ?? 0));
    const row = slowest?.row;
    return {
      place: slowest?.place ?? '',
      ms: row?.observedMs ?? 0,
      ratio: row === undefined ? undefined : row.observedMs / row.expectedMs,
    };
  });
}

function stageRows(text: string): readonly (readonly [string, StageRow])[] {
  const { host, rows } = JSON.parse(text) as { readonly host: string; readonly rows?: readonly StageRow[] };
  return (rows ?? []).map((row) => [`${host} ${row.split} ${row.shard} ${row.device}`, row]);
}
