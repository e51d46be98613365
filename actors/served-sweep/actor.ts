/**
 * Deletes facts of models that nobody serves any more from `served/` in the store: without it each version that was ever
 * served would stay there for ever.
 *
 * Only whoever leads sweeps, in transactions that its lead fences. A key goes when no host referred to it in two looks in a
 * row and nobody has written it in between: hosts write facts anew, which changes their revision, before they refer to them.
 */
import type { GridKeys } from '#core/grid/keys.js';
import { readActual } from '#core/grid/record-text.js';
import { asIntarsiaError } from '#core/errors.js';
import type { Store } from '#ports/store.js';
import type { ElectionMessage, Leadership } from '#actors/election/protocol.js';
import type { Actor, ActorContext, ActorFactory, ActorRef, ReplyTo, Signal } from '#runtime/actor.js';

export interface ServedSweepOptions {
  readonly store: Store;
  readonly keys: GridKeys;
  readonly election: ActorRef<ElectionMessage>;
  /** Between two looks, ms, default 600,000. */
  readonly everyMs?: number;
}

export type ServedSweepInbox =
  | { readonly type: 'leadership'; readonly leadership: Leadership }
  | { readonly type: 'look'; readonly lead: number }
  | { readonly type: 'looked'; readonly lead: number; readonly unreferred: ReadonlyMap<string, number> | undefined };

const callMs = 10_000;
const everyMsDefault = 600_000;
/** Keys deleted in one look; the others are in the next. */
const sweptMax = 1_000;

/** Spawn one on each host that may lead, as `served-sweep`. */
export function servedSweepActor(options: ServedSweepOptions): ActorFactory<ServedSweepInbox> {
  return (context) => new ServedSweep(options, context);
}

class ServedSweep implements Actor<ServedSweepInbox> {
  readonly #options: ServedSweepOptions;
  readonly #context: ActorContext<ServedSweepInbox>;
  readonly #subscriber: ReplyTo<Leadership>;
  #leadership: Extract<Leadership, { leading: true }> | undefined;
  #lead = 0;
  /** Keys that nobody referred to at the last look, with their revisions. */
  #unreferred: ReadonlyMap<string, number> = new Map();

  constructor(options: ServedSweepOptions, context: ActorContext<ServedSweepInbox>) {
    this.#options = options;
    this.#context = context;
    const { self } = context;
    this.#subscriber = { tell: (leadership) => self.tell({ type: 'leadership', leadership }) };
    options.election.tell({ type: 'subscribe', subscriber: this.#subscriber });
  }

  receive(message: ServedSweepInbox): void {
    if (message.type === 'leadership') this.#onLeadership(message.leadership);
    else if (message.lead !== this.#lead) return;
    else if (message.type === 'look') {
      const { lead } = message;
      this.#context.pipeToSelf(
        this.#look(),
        (unreferred) => ({ type: 'looked', lead, unreferred }),
        (thrown) => {
          this.#context.log.debug('facts of what is served could not be swept', {
            reason: asIntarsiaError(thrown).message,
          });
          return { type: 'looked', lead, unreferred: undefined };
        },
      );
    } else {
      this.#unreferred = message.unreferred ?? new Map();
      this.#lookLater();
    }
  }

  signal(signal: Signal): void {
    if (signal.type === 'drain') this.#context.stop();
    if (signal.type !== 'post-stop' && signal.type !== 'pre-restart') return;
    this.#options.election.tell({ type: 'unsubscribe', subscriber: this.#subscriber });
  }

  #onLeadership(leadership: Leadership): void {
    const epoch = leadership.leading ? leadership.epoch : undefined;
    if (epoch === this.#leadership?.epoch) return;
    this.#leadership = leadership.leading ? leadership : undefined;
    this.#lead += 1;
    this.#unreferred = new Map();
    if (leadership.leading) this.#lookLater();
  }

  #lookLater(): void {
    this.#context.schedule(this.#options.everyMs ?? everyMsDefault, { type: 'look', lead: this.#lead });
  }

  /** What nobody refers to now. Deletes what nobody referred to before either. @throws what the store throws. */
  async #look(): Promise<ReadonlyMap<string, number>> {
    const { store, keys } = this.#options;
    const leadership = this.#leadership;
    const before = this.#unreferred;
    const until = { deadlineMs: this.#context.clock.nowMs() + callMs };
    // The facts first: whoever refers to them has written them before.
    const served = await store.range(keys.served, until);
    const actuals = await store.range(keys.actuals, until);
    const referred = new Set(
      actuals.entries.flatMap(({ value }) =>
        readActual(value).replicas.map(({ facts }) => `${keys.served}${facts ?? ''}`),
      ),
    );
    const unreferred = new Map<string, number>();
    let swept = 0;
    for (const { key, modRevision } of served.entries) {
      if (referred.has(key)) continue;
      unreferred.set(key, modRevision);
      if (leadership === undefined || before.get(key) !== modRevision || swept >= sweptMax) continue;
      swept += 1;
      await store.transact(
        {
          conditions: [leadership.fence, { key, test: 'modRevision', equals: modRevision }],
          operations: [{ type: 'delete', key }],
        },
        { deadlineMs: this.#context.clock.nowMs() + callMs },
      );
    }
    return unreferred;
  }
}
