/**
 * What every coordination store promises, whatever is behind the port: run on the pretend store, on the embedded store and
 * on etcd. A world says how to reach, stop, start, wipe and compact the store, and how time passes there.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { IntarsiaError } from '#core/errors.js';
import type { Clock } from '#ports/clock.js';
import type { Store, StoreEntry, StoreOperation, StoreWatchEvent } from '#ports/store.js';
import { storeKeyBytesMax, storeValueBytesMax } from '#ports/store.js';

export interface StoreWorld {
  readonly clock: Clock;
  /** A new client. */
  open(host: string): Store;
  /** Drives time until the promise is settled. */
  settle<Result>(promise: Promise<Result>): Promise<Result>;
  /** Drives time until the condition holds; fails with `what` when it never does. */
  until(what: string, condition: () => boolean): Promise<void>;
  /** The store's process ends; its data stays. */
  stop(): Promise<void>;
  start(): Promise<void>;
  /** Another, empty store in its place. The store is stopped. */
  wipe(): Promise<void>;
  /** Forgets all history. */
  compact(): Promise<void>;
  /** Moves wall time of the clients by so much; undefined where it cannot be moved. */
  stepWall(durationMs: number): void;
  end(): Promise<void>;
}

/** Collects what a watch says. */
class Watched {
  readonly events: StoreWatchEvent[] = [];
  readonly onEvent = (event: StoreWatchEvent): void => void this.events.push(event);

  /** `+key=value@revision` and `-key@revision`, in order. */
  get changes(): string[] {
    return this.events.flatMap((event) =>
      event.type !== 'changes'
        ? []
        : event.changes.map((change) =>
            change.type === 'put'
              ? `+${change.entry.key}=${change.entry.value}@${event.revision}`
              : `-${change.key}@${event.revision}`,
          ),
    );
  }

  get lost(): string | undefined {
    const last = this.events.at(-1);
    return last?.type === 'lost' ? last.reason : undefined;
  }

  has(type: 'connected' | 'progress', connected?: boolean): boolean {
    return this.events.some(
      (event) =>
        event.type === type &&
        (connected === undefined || (event.type === 'connected' && event.connected === connected)),
    );
  }
}

export function storeContract(title: string, makeWorld: () => Promise<StoreWorld>): void {
  describe(`store contract: ${title}`, () => {
    let world: StoreWorld;
    let store: Store;
    const callMs = 10_000;
    const soon = (): { readonly deadlineMs: number } => ({ deadlineMs: world.clock.nowMs() + callMs });
    const put = (key: string, value: string, lease?: string): StoreOperation =>
      lease === undefined ? { type: 'put', key, value } : { type: 'put', key, value, lease };
    const write = async (...operations: StoreOperation[]): Promise<number> => {
      const outcome = await world.settle(store.transact({ conditions: [], operations }, soon()));
      expect(outcome.ok).toBe(true);
      return outcome.revision;
    };
    const read = async (prefix = ''): Promise<string[]> =>
      (await world.settle(store.range(prefix, soon()))).entries.map(({ key, value }) => `${key}=${value}`);
    const get = async (key: string): Promise<StoreEntry | undefined> =>
      (await world.settle(store.get(key, soon()))).entry;
    const codeOf = async (promise: Promise<unknown>): Promise<string> => {
      const error: unknown = await world.settle(
        promise.then(
          () => undefined,
          (thrown: unknown) => thrown,
        ),
      );
      if (error instanceof IntarsiaError) return error.code;
      throw new Error(`expected an IntarsiaError, got ${String(error)}`);
    };
    const watch = async (prefix: string, fromRevision: number, from: Store = store): Promise<Watched> => {
      const watched = new Watched();
      from.watch(prefix, fromRevision, watched.onEvent);
      expect(watched.events).toEqual([]);
      return Promise.resolve(watched);
    };
    /** A store that is away refuses at once; the client finds its way back by itself. */
    const answered = async (): Promise<void> => {
      for (;;) {
        const outcome = await world.settle(
          store.get('anything', { deadlineMs: world.clock.nowMs() + 1000 }).then(
            () => 'answered',
            (error: unknown) => error,
          ),
        );
        if (outcome === 'answered') return;
        expect(outcome).toBeInstanceOf(IntarsiaError);
      }
    };

    beforeEach(async () => {
      world = await makeWorld();
      store = world.open('host-a');
    });
    afterEach(async () => {
      await world.settle(store.close());
      await world.end();
    });

    it('counts one revision for each transaction that changes something', async () => {
      const first = await write(put('a', '1'), put('b', '2'));
      const second = await write(put('a', '3'));
      expect(second).toBe(first + 1);
      expect(await write({ type: 'delete', key: 'absent' })).toBe(second);
      const snapshot = await world.settle(store.range('', soon()));
      expect(snapshot).toEqual({
        revision: second,
        entries: [
          { key: 'a', value: '3', createRevision: first, modRevision: second },
          { key: 'b', value: '2', createRevision: first, modRevision: first },
        ],
      });
      expect(await world.settle(store.get('absent', soon()))).toEqual({ revision: second, entry: undefined });
    });

    it('reads a prefix in the order of bytes, and no more than the prefix', async () => {
      await write(put('p/é', 'x'), put('p/z', 'y'), put('p/', 'z'), put('p', 'no'), put('p0', 'no'), put('p/z/1', ''));
      expect(await read('p/')).toEqual(['p/=z', 'p/z=y', 'p/z/1=', 'p/é=x']);
    });

    it('does all of a transaction or nothing', async () => {
      const revision = await write(put('a', '1'));
      const attempt = (conditions: Parameters<Store['transact']>[0]['conditions']): Promise<unknown> =>
        world.settle(store.transact({ conditions, operations: [put('a', '2'), put('c', '3')] }, soon()));
      expect(await attempt([{ key: 'a', test: 'absent' }])).toEqual({ ok: false, revision });
      expect(
        await attempt([
          { key: 'a', test: 'value', equals: '1' },
          { key: 'b', test: 'modRevision', equals: 7 },
        ]),
      ).toEqual({ ok: false, revision });
      expect(await read()).toEqual(['a=1']);
      expect(
        await attempt([
          { key: 'a', test: 'value', equals: '1' },
          { key: 'a', test: 'createRevision', equals: revision },
          { key: 'a', test: 'modRevision', equals: revision },
          { key: 'c', test: 'absent' },
        ]),
      ).toEqual({ ok: true, revision: revision + 1 });
      expect(await read()).toEqual(['a=2', 'c=3']);
    });

    it('lets one of many win a race for the same key', async () => {
      const stores = Array.from({ length: 8 }, (_, index) => world.open(`racer-${index}`));
      const outcomes = await world.settle(
        Promise.all(
          stores.map((racer, index) =>
            racer.transact(
              { conditions: [{ key: 'leader', test: 'absent' }], operations: [put('leader', String(index))] },
              soon(),
            ),
          ),
        ),
      );
      const winners = outcomes.flatMap((outcome, index) => (outcome.ok ? [String(index)] : []));
      expect(winners).toHaveLength(1);
      expect((await get('leader'))?.value).toBe(winners[0]);
      for (const racer of stores) await world.settle(racer.close());
    });

    it('counts every increment of several writers that compare and swap', async () => {
      await write(put('count', '0'));
      const stores = Array.from({ length: 4 }, (_, index) => world.open(`writer-${index}`));
      const increment = async (from: Store): Promise<void> => {
        for (;;) {
          const { entry } = await from.get('count', soon());
          const next = String(Number(entry?.value) + 1);
          const outcome = await from.transact(
            {
              conditions: [{ key: 'count', test: 'modRevision', equals: entry?.modRevision ?? 0 }],
              operations: [put('count', next)],
            },
            soon(),
          );
          if (outcome.ok) return;
        }
      };
      const all = stores.map(async (from) => {
        for (let round = 0; round < 10; round += 1) await increment(from);
      });
      await world.settle(Promise.all(all));
      expect((await get('count'))?.value).toBe('40');
      for (const from of stores) await world.settle(from.close());
    });

    it('deletes a prefix at one revision', async () => {
      await write(put('x/1', ''), put('x/2', ''), put('y', ''));
      const watched = await watch('', await write(put('z', '')));
      const revision = await write({ type: 'delete-prefix', prefix: 'x/' });
      await world.until('the deletions', () => watched.changes.length >= 3);
      expect(watched.changes.slice(1)).toEqual([`-x/1@${revision}`, `-x/2@${revision}`]);
    });

    it('refuses what is beyond a bound and changes nothing', async () => {
      const { revision } = await world.settle(store.get('a', soon()));
      const refused: StoreOperation[][] = [
        [put('', 'x')],
        [put('k'.repeat(storeKeyBytesMax + 1), 'x')],
        [put('a', 'x'.repeat(storeValueBytesMax + 1))],
        [put('a', '1'), put('a', '2')],
        Array.from({ length: 129 }, (_, index) => put(`k${index}`, '')),
      ];
      for (const operations of refused) {
        expect(await codeOf(store.transact({ conditions: [], operations }, soon()))).toBe('INVALID_ARGUMENT');
      }
      expect((await world.settle(store.get('a', soon()))).revision).toBe(revision);
      await write(put('k'.repeat(storeKeyBytesMax), 'x'.repeat(storeValueBytesMax)));
      await write(...Array.from({ length: 128 }, (_, index) => put(`k${index}`, '')));
    });

    it('tells a watch every change of its keys from a revision on, once and in order', async () => {
      const first = await write(put('w/a', '1'));
      await write(put('other', 'x'));
      await write(put('w/a', '2'), put('w/b', '1'));
      const watched = await watch('w/', first + 1);
      const later = await watch('w/', first + 3);
      await write({ type: 'delete', key: 'w/a' });
      await write(put('w/a', '3'));
      await world.until('four changes', () => watched.changes.length >= 4 && later.changes.length >= 2);
      expect(watched.changes.slice(0, 2)).toEqual([`+w/a=2@${first + 2}`, `+w/b=1@${first + 2}`]);
      expect(watched.changes.slice(2)).toEqual([`-w/a@${first + 3}`, `+w/a=3@${first + 4}`]);
      expect(later.changes).toEqual([`-w/a@${first + 3}`, `+w/a=3@${first + 4}`]);
    });

    it('calls no watch after it was cancelled', async () => {
      const watched = new Watched();
      const other = await watch('', await write(put('a', '0')));
      const cancelled = store.watch('', 1, watched.onEvent);
      cancelled.cancel();
      await write(put('a', '1'));
      await world.until('the other watch', () => other.changes.length === 2);
      expect(watched.events).toEqual([]);
    });

    it('ends a watch from a compacted revision as lost', async () => {
      const first = await write(put('a', '1'));
      await write(put('a', '2'));
      await write(put('a', '3'));
      await world.compact();
      const watched = await watch('a', first);
      await world.until('the loss', () => watched.lost !== undefined);
      expect(watched.lost).toContain('compacted');
      expect(watched.changes).toEqual([]);
    });

    it('proves from time to time that a quiet watch has missed nothing', async () => {
      const revision = await write(put('other', '1'));
      const watched = await watch('quiet/', revision + 1);
      await world.until('a proof', () => watched.has('progress'));
      const proof = watched.events.find((event) => event.type === 'progress');
      expect(proof).toEqual({ type: 'progress', revision });
    });

    it('has the same data after a restart, and a watch that missed nothing', async () => {
      const first = await write(put('a', '1'), put('b', '2'));
      const watched = await watch('', first);
      await world.until('the first change', () => watched.changes.length === 2);
      await world.stop();
      await world.until('the break', () => watched.has('connected', false));
      expect(await codeOf(store.get('a', soon()))).toBe('STORE_UNAVAILABLE');
      await world.start();
      await answered();
      expect(await read()).toEqual(['a=1', 'b=2']);
      const second = await write(put('c', '3'));
      expect(second).toBe(first + 1);
      await world.until('the change after it', () => watched.changes.length === 3);
      expect(watched.changes[2]).toBe(`+c=3@${second}`);
      expect(watched.has('connected', true)).toBe(true);
    });

    it('tells watch and lease when the store was wiped, and goes on with the new one', async () => {
      const first = await write(put('a', '1'));
      const watched = await watch('', first);
      const lost: string[] = [];
      await world.settle(store.lease(5000, (reason) => lost.push(reason), soon()));
      await world.until('the first change', () => watched.changes.length === 1);
      await world.stop();
      await world.wipe();
      await world.start();
      await world.until('both losses', () => watched.lost !== undefined && lost.length === 1);
      await answered();
      expect(await read()).toEqual([]);
      await write(put('b', '1'));
    });

    it('keeps a lease alive beyond its time, and its keys', async () => {
      const lost: string[] = [];
      const lease = await world.settle(store.lease(2000, (reason) => lost.push(reason), soon()));
      await write(put('mine', '1', lease.id));
      expect((await get('mine'))?.lease).toBe(lease.id);
      const startMs = world.clock.nowMs();
      await world.until('three times its time', () => world.clock.nowMs() > startMs + lease.ttlMs * 3);
      expect(lost).toEqual([]);
      expect((await get('mine'))?.value).toBe('1');
      await world.settle(lease.revoke());
      await world.settle(lease.revoke());
      expect(await get('mine')).toBeUndefined();
      expect(lost).toEqual([]);
    });

    it('deletes the keys of a lease that is not kept alive, at one revision', async () => {
      const lease = await world.settle(store.lease(2000, () => {}, soon()));
      const revision = await write(put('l/1', '', lease.id), put('l/2', '', lease.id), put('free', ''));
      const watched = await watch('', revision + 1);
      lease.abandon();
      await world.until('the deletions', () => watched.changes.length === 2);
      expect(watched.changes).toEqual([`-l/1@${revision + 1}`, `-l/2@${revision + 1}`]);
      expect(await read()).toEqual(['free=']);
    });

    it('refuses a key with a lease that is over', async () => {
      const lease = await world.settle(store.lease(2000, () => {}, soon()));
      await world.settle(lease.revoke());
      const late = store.transact({ conditions: [], operations: [put('a', '', lease.id)] }, soon());
      expect(await codeOf(late)).toBe('NOT_FOUND');
    });

    it('tells the holder of a lease in time when the store is away, once', async () => {
      const lost: number[] = [];
      const lease = await world.settle(store.lease(2000, () => lost.push(world.clock.nowMs()), soon()));
      const stoppedMs = world.clock.nowMs();
      await world.stop();
      await world.until('the loss', () => lost.length > 0);
      expect(lost).toHaveLength(1);
      // The last answered keep-alive was sent before the stop; half a second is for a busy machine's timers.
      expect((lost[0] ?? Infinity) - stoppedMs).toBeLessThanOrEqual(lease.ttlMs + 500);
      await world.start();
      await answered();
      expect(lost).toHaveLength(1);
    });

    it('takes no notice of a step of the wall clock', async () => {
      const lost: string[] = [];
      const lease = await world.settle(store.lease(3000, (reason) => lost.push(reason), soon()));
      await write(put('mine', '1', lease.id));
      const watched = await watch('mine', (await write(put('x', ''))) + 1);
      for (const stepMs of [3_600_000, -7_200_000]) {
        world.stepWall(stepMs);
        const startMs = world.clock.nowMs();
        await world.until('some time', () => world.clock.nowMs() > startMs + lease.ttlMs);
        await write(put('mine', String(stepMs), lease.id));
      }
      await world.until('both changes', () => watched.changes.length === 2);
      expect(lost).toEqual([]);
    });

    it('ends what is under way when the client is closed', async () => {
      const closing = world.open('closing');
      const watched = await watch('', 1, closing);
      await world.settle(closing.close());
      expect(await codeOf(closing.get('a', soon()))).toBe('STORE_UNAVAILABLE');
      await write(put('a', '1'));
      expect(watched.changes).toEqual([]);
    });
  });
}
