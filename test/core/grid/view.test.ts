/** The fold of membership against a fold from scratch, and what bad records do to it. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { gridKeys } from '#core/grid/keys.js';
import type { MemberChange, StoreEntryLike } from '#core/grid/member-change.js';
import { writeMember } from '#core/grid/member-text.js';
import type { HostRecord, View } from '#core/grid/records.js';
import { MembershipFold } from '#core/grid/view.js';
import { hostId } from '#core/ids.js';

const keys = gridKeys('test');
const names = ['a', 'b', 'c', 'edge/1'].map(hostId);

function record(name: string, changes: Partial<HostRecord> = {}): HostRecord {
  return {
    format: 1,
    host: hostId(name),
    process: 'p',
    linkAddress: 'x:1',
    grpcEndpoint: '',
    httpEndpoint: '',
    role: 'host',
    softwareVersion: '1',
    linkVersions: [1, 1],
    tier: 'core',
    zone: '',
    labels: {},
    spot: false,
    devices: [],
    ...changes,
  };
}

const order = (cordoned: boolean, draining: boolean): string =>
  writeMember({ format: 1, cordoned, draining, deadlineWallMs: 0, reason: '' });

const plain = (view: View): unknown =>
  [...view.hosts].map(([host, each]) => ({ host, ...each })).sort((left, right) => (left.host < right.host ? -1 : 1));

describe('the fold of membership', () => {
  it('is after any changes what a reading of everything gives, at every revision', () => {
    const host = fc.constantFrom(...names);
    const change = fc.oneof(
      fc.record({ what: fc.constant('join' as const), host, draining: fc.boolean() }),
      fc.record({ what: fc.constant('leave' as const), host }),
      fc.record({ what: fc.constant('order' as const), host, cordoned: fc.boolean(), draining: fc.boolean() }),
      fc.record({ what: fc.constant('no order' as const), host }),
      fc.record({ what: fc.constant('vote' as const), host, voter: host, back: fc.integer({ min: 0, max: 1 }) }),
      fc.record({ what: fc.constant('no vote' as const), host, voter: host }),
      fc.record({ what: fc.constant('rubbish' as const), host, text: fc.string() }),
    );
    const property = fc.property(fc.array(fc.tuple(change, fc.boolean()), { maxLength: 60 }), (script) => {
      const entries = new Map<string, StoreEntryLike>();
      const fold = new MembershipFold(keys);
      let revision = 0;
      for (const [each, look] of script) {
        revision += 1;
        const put = (key: string, value: string): MemberChange => {
          const entry = { key, value, createRevision: entries.get(key)?.createRevision ?? revision };
          entries.set(key, entry);
          return { type: 'put', entry };
        };
        const remove = (key: string): MemberChange => {
          entries.delete(key);
          return { type: 'delete', key };
        };
        const generation = entries.get(keys.host(each.host))?.createRevision ?? 1;
        const changes: MemberChange[] = [];
        if (each.what === 'join') {
          changes.push(put(keys.host(each.host), writeMember(record(each.host, { draining: each.draining }))));
        } else if (each.what === 'leave') {
          changes.push(remove(keys.host(each.host)));
          for (const key of [...entries.keys()]) if (key.endsWith(`/${each.host}`)) changes.push(remove(key));
        } else if (each.what === 'order') {
          changes.push(put(keys.order(each.host), order(each.cordoned, each.draining)));
        } else if (each.what === 'no order') changes.push(remove(keys.order(each.host)));
        else if (each.what === 'vote') {
          changes.push(put(keys.vote(each.host, Math.max(1, generation - each.back), each.voter), '{}'));
        } else if (each.what === 'no vote') changes.push(remove(keys.vote(each.host, generation, each.voter)));
        else changes.push(put(keys.host(each.host), each.text));
        fold.apply(revision, changes);
        if (!look) continue;
        const fresh = new MembershipFold(keys);
        fresh.reset(revision, [...entries.values()]);
        expect(plain(fold.view())).toEqual(plain(fresh.view()));
        expect(fold.view()).toMatchObject({ revision });
      }
    });
    fc.assert(property, { numRuns: 500 });
  });

  it('keeps the objects of hosts that did not change, and the map when nothing did', () => {
    const fold = new MembershipFold(keys);
    const entry = (name: string, createRevision: number): StoreEntryLike => ({
      key: keys.host(hostId(name)),
      value: writeMember(record(name)),
      createRevision,
    });
    fold.reset(2, [entry('a', 1), entry('b', 2)]);
    const before = fold.view();
    fold.apply(3, [{ type: 'put', entry: entry('c', 3) }]);
    const after = fold.view();
    expect(after.hosts.get(hostId('a'))).toBe(before.hosts.get(hostId('a')));
    expect(before.hosts.size).toBe(2);
    fold.progress(9);
    expect(fold.view().hosts).toBe(after.hosts);
    expect(fold.view().revision).toBe(9);
  });

  it('leaves records out that cannot be read, and says which and why', () => {
    const fold = new MembershipFold(keys);
    const bad = (value: string): StoreEntryLike => ({ key: keys.host(hostId('a')), value, createRevision: 1 });
    const texts = [
      '',
      '[]',
      '{"format":2}',
      writeMember(record('b')),
      writeMember({ ...record('a'), tier: 'moon' as never }),
    ];
    for (const text of texts) {
      fold.reset(1, [bad(text)]);
      expect(fold.view().hosts.size).toBe(0);
      expect(fold.takeProblems()).toHaveLength(1);
    }
    fold.reset(1, [{ key: `${keys.members}else`, value: '', createRevision: 1 }]);
    expect(fold.takeProblems()[0]).toContain('is not a key of a member');
  });

  it('reads keys back for any names of hosts', () => {
    const name = fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_:/@+-]{0,40}$/).map(hostId);
    const property = fc.property(name, name, fc.integer({ min: 1, max: 1e9 }), (host, voter, generation) => {
      expect(keys.parseMember(keys.host(host))).toEqual({ kind: 'host', host });
      expect(keys.parseMember(keys.order(host))).toEqual({ kind: 'order', host });
      expect(keys.parseMember(keys.vote(host, generation, voter))).toEqual({ kind: 'vote', host, generation, voter });
    });
    fc.assert(property);
  });
});
