import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { StoreMachine } from '#core/store/machine.js';
import { encodeRecord, readRecord } from '#core/store/record-codec.js';
import type { StoreRecord } from '#core/store/requests.js';

/** The obviously right store: the whole map again for every revision. */
class SlowStore {
  readonly states: ReadonlyMap<string, { value: string; create: number; mod: number; lease: string }>[] = [
    new Map(),
    new Map(),
  ];
  readonly leases = new Set<string>();

  get revision(): number {
    return this.states.length - 1;
  }

  private get now(): Map<string, { value: string; create: number; mod: number; lease: string }> {
    return new Map(this.states.at(-1));
  }

  write(puts: readonly string[], deletes: readonly string[], value: string, lease: string): void {
    const next = this.now;
    const mod = this.states.length;
    let changed = puts.length > 0;
    for (const key of deletes) changed = next.delete(key) || changed;
    for (const key of puts) next.set(key, { value, create: next.get(key)?.create ?? mod, mod, lease });
    if (changed) this.states.push(next);
  }

  revoke(lease: string): void {
    this.leases.delete(lease);
    const keys = [...this.now].flatMap(([key, entry]) => (entry.lease === lease ? [key] : []));
    this.write([], keys, '', '0');
  }

  at(revision: number): string[] {
    return [...(this.states[revision] ?? [])]
      .map(([key, { value, create, mod, lease }]) => `${key}=${value}/${create}/${mod}/${lease}`)
      .sort();
  }
}

const keys = ['a', 'ab', 'b', 'ba', 'c'];
const keyList = fc.subarray(keys);
const leaseId = fc.constantFrom('7', '8');
const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ type: fc.constant('write' as const), puts: keyList, deletes: keyList, lease: leaseId }),
  },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('grant' as const), lease: leaseId }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('revoke' as const), lease: leaseId }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('compact' as const), back: fc.nat(4) }) },
);

function read(machine: StoreMachine, revision: number): string[] {
  return machine
    .range({ key: '\0', end: '\0', revision })
    .entries.map(
      (entry) =>
        `${entry.key}=${new TextDecoder().decode(entry.value)}/${entry.createRevision}/${entry.modRevision}/${entry.lease}`,
    );
}

describe('store machine', () => {
  it('agrees with a naive store at every revision of its history, and so does one made of its records or its snapshot', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const machine = new StoreMachine('5');
        const slow = new SlowStore();
        const records: StoreRecord[] = [];
        const note = (record: StoreRecord | undefined): void => {
          if (record !== undefined) records.push(record);
        };
        steps.forEach((one, index) => {
          if (one.type === 'write') {
            const lease = slow.leases.has(one.lease) ? one.lease : '0';
            const deletes = one.deletes.filter((key) => !one.puts.includes(key));
            const value = String(index);
            const success = [
              ...deletes.map((key) => ({ type: 'delete' as const, key, end: '' })),
              ...one.puts.map((key) => ({ type: 'put' as const, key, value: new TextEncoder().encode(value), lease })),
            ];
            note(machine.transact({ compares: [], success, failure: [] }).record);
            slow.write(one.puts, deletes, value, lease);
          } else if (one.type === 'grant' && !slow.leases.has(one.lease)) {
            note(machine.grant(one.lease, 10, 0));
            slow.leases.add(one.lease);
          } else if (one.type === 'revoke' && slow.leases.has(one.lease)) {
            note(machine.revoke(one.lease));
            slow.revoke(one.lease);
          } else if (one.type === 'compact') {
            const revision = machine.revision - one.back;
            if (revision > machine.compactedRevision && revision > 0) note(machine.compact(revision));
          }
        });
        const replayed = new StoreMachine('5');
        for (const record of records) replayed.apply(record, 0);
        const restored = new StoreMachine('0');
        for (const record of machine.snapshot()) restored.apply(record, 0);
        for (const candidate of [machine, replayed, restored]) {
          expect(candidate.revision).toBe(slow.revision);
          expect(new Set(candidate.leaseIds())).toEqual(slow.leases);
          const oldest = Math.max(1, machine.compactedRevision);
          for (let revision = oldest; revision <= slow.revision; revision += 1) {
            expect(read(candidate, revision)).toEqual(slow.at(revision));
          }
          // What a watch tells turns each state into the next.
          const state = new Map(slow.states[oldest]);
          for (const { revision, events } of candidate.eventsFrom(oldest + 1, 1000) ?? []) {
            for (const { type, entry } of events) {
              const { key, value, createRevision: create, modRevision: mod, lease } = entry;
              if (type === 'delete') state.delete(key);
              else state.set(key, { value: new TextDecoder().decode(value), create, mod, lease });
            }
            expect(state).toEqual(slow.states[revision]);
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  it('reads a record back as it was, and takes no cut or changed one for a record', () => {
    const record: StoreRecord = {
      type: 'revision',
      revision: 12,
      mutations: [
        { type: 'put', key: 'k\u00ff', value: Uint8Array.of(0, 255, 7), lease: '9223372036854775807' },
        { type: 'delete', key: 'x' },
      ],
    };
    const bytes = encodeRecord(record);
    expect(readRecord(bytes, 0)).toEqual({ type: 'record', record, next: bytes.length });
    for (let length = 1; length < bytes.length; length += 1) {
      expect(readRecord(bytes.slice(0, length), 0).type).toBe('broken');
    }
    for (let index = 0; index < bytes.length; index += 1) {
      const damaged = bytes.slice();
      damaged[index] = (damaged[index] ?? 0) ^ 16;
      expect(readRecord(damaged, 0).type).toBe('broken');
    }
  });

  it('keeps its history bounded and refuses puts beyond its bytes', () => {
    const machine = new StoreMachine('1', { historyRevisions: 100, bytesMax: 20_000 });
    const put = (key: string, bytes: number): void => {
      const value = new Uint8Array(bytes);
      machine.transact({ compares: [], success: [{ type: 'put', key, value, lease: '0' }], failure: [] });
      const due = machine.compactionDue();
      if (due !== undefined) machine.compact(due);
    };
    for (let round = 0; round < 1000; round += 1) put('same', 10);
    expect(machine.revision - machine.compactedRevision).toBeLessThanOrEqual(126);
    expect(() => put('large', 20_000)).toThrow('database space exceeded');
  });
});
