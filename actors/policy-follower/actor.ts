/**
 * Follows the pointer of policies in the store, and brings what it says into this gateway: loads and checks the versions it
 * names, hands them over, tells the store what was seen of the one on trial, and takes it back when the watch says so.
 *
 * The policies of before decide until the new ones are loaded, and while the store is away. A version that cannot be used is
 * refused with the reason, and its base decides; the pointer stays, so that the operator sees which host refuses.
 */
import { asIntarsiaError, messageOf } from '#core/errors.js';
import type { GridKeys } from '#core/grid/keys.js';
import { readPointer, readVersion, type PolicySighting } from '#core/scheduling/policy-records.js';
import { loadedVersions, nextPointer, noPointer, pointerText, type PolicyPointer } from '#core/scheduling/promotion.js';
import type { HostId } from '#core/ids.js';
import type { Store } from '#ports/store.js';
import type { Actor, ActorContext, ActorFactory, Signal } from '#runtime/actor.js';
import { writeWithEvent } from '#runtime/policy-writes.js';
import { StoreFollower, type FollowerMessage } from '#runtime/store-follower.js';

/** A version that was loaded, or why it was refused. */
export type LoadedVersion<Policy> = { readonly policy: Policy } | { readonly refused: string };

/** Files of one version, in base64, and the digests that its record names. */
export interface StoredFiles {
  readonly artifact: string;
  readonly sha256: string;
  /** The file that forms batches; absent where the version has none. */
  readonly batching?: { readonly artifact: string; readonly sha256: string };
}

export interface PolicyFollowerOptions<Policy> {
  readonly host: HostId;
  readonly store: Store;
  readonly keys: GridKeys;
  /** The rule of that name, or what this host was started with (`own`). @throws CONFIG_INVALID for none. */
  readonly ruleOf: (reference: string) => Policy;
  /** The policy of stored files. @throws MODEL_INVALID, ARTIFACT_DAMAGED (not the digest that the record names) */
  readonly versionOf: (files: StoredFiles) => Policy;
  /** Takes effect with the next decision. `policy` is undefined where it cannot be used here. */
  readonly follow: (pointer: PolicyPointer, policy: Policy | undefined, base: Policy) => void;
  /** What was seen of the policy on trial, and why it is to be taken back (empty: it is not). */
  readonly look: () => { readonly sighting: Pick<PolicySighting, 'figures' | 'groups'>; readonly verdict: string };
  /** Told when a version is refused and when a policy is taken back. Default: nobody. */
  readonly onRefused?: (version: string) => void;
  readonly onTakenBack?: (policy: string) => void;
  /** Between two looks, ms, default 1,000; a sighting is written every fifth. */
  readonly lookMs?: number;
}

type Inbox<Policy> =
  | FollowerMessage<'current'>
  | {
      readonly type: 'loaded';
      readonly turn: number;
      readonly versions: ReadonlyMap<string, LoadedVersion<Policy>>;
      readonly isComplete: boolean;
    }
  | { readonly type: 'load'; readonly turn: number }
  | { readonly type: 'look' }
  | { readonly type: 'done'; readonly failed: string };

const callMs = 10_000;
const retryMs = 1_000;
const lookMsDefault = 1_000;
const sightingLooks = 5;

/** Spawn one a gateway, as `policy-follower`. */
export function policyFollowerActor<Policy>(options: PolicyFollowerOptions<Policy>): ActorFactory<Inbox<Policy>> {
  return (context) => new PolicyFollower(options, context);
}

class PolicyFollower<Policy> implements Actor<Inbox<Policy>> {
  readonly #options: PolicyFollowerOptions<Policy>;
  readonly #context: ActorContext<Inbox<Policy>>;
  readonly #follower: StoreFollower<'current'>;
  #versions = new Map<string, LoadedVersion<Policy>>();
  #pointer: PolicyPointer = noPointer;
  /** Of the pointer's key as it was read. */
  #revision: number | undefined;
  /** Whether the pointer's policies decide already. */
  #isFollowing = false;
  #turn = 0;
  #looks = 0;
  #isWriting = false;
  #lastSighting = '';

  constructor(options: PolicyFollowerOptions<Policy>, context: ActorContext<Inbox<Policy>>) {
    this.#options = options;
    this.#context = context;
    const { store, keys } = options;
    this.#follower = new StoreFollower(
      { folder: 'current', store, prefix: keys.policyPointer, callMs, retryMsMin: 250, retryMsMax: 5_000 },
      context,
    );
    this.#follower.start();
    this.#lookLater();
  }

  receive(message: Inbox<Policy>): void {
    switch (message.type) {
      case 'follower':
        if (this.#follower.handle(message).size > 0) this.#onPointer();
        return;
      case 'load':
        if (message.turn === this.#turn) this.#load();
        return;
      case 'loaded':
        if (message.turn === this.#turn) this.#onLoaded(message.versions, message.isComplete);
        return;
      case 'look':
        this.#look();
        this.#lookLater();
        return;
      case 'done':
        this.#isWriting = false;
        if (message.failed !== '') {
          this.#lastSighting = '';
          this.#context.log.debug('the store could not be told of policies', { reason: message.failed });
        }
    }
  }

  signal(signal: Signal): void {
    if (signal.type === 'drain') this.#context.stop();
    if (signal.type === 'post-stop' || signal.type === 'pre-restart') this.#follower.stop();
  }

  #onPointer(): void {
    const entry = this.#follower.entries.get(this.#options.keys.policyPointer);
    if (entry?.modRevision === this.#revision && this.#isFollowing) return;
    let pointer = noPointer;
    if (entry !== undefined) {
      try {
        pointer = readPointer(entry.value);
        this.#options.ruleOf(pointer.base.includes('@') ? noPointer.base : pointer.base);
      } catch (error) {
        // What decides goes on deciding: a pointer of a later release is no reason to stop.
        this.#context.log.warn('the pointer of policies cannot be followed', { reason: messageOf(error) });
        return;
      }
    }
    this.#revision = entry?.modRevision;
    this.#pointer = pointer;
    this.#isFollowing = false;
    this.#turn += 1;
    this.#load();
  }

  /** Fetches what is not loaded yet. */
  #load(): void {
    const turn = this.#turn;
    const missing = [...loadedVersions(this.#pointer)].filter((id) => {
      const known = this.#versions.get(id);
      return known === undefined || 'refused' in known;
    });
    this.#context.pipeToSelf(
      this.#fetch(missing),
      (versions) => ({ type: 'loaded', turn, versions, isComplete: true }),
      (thrown) => {
        const reason = asIntarsiaError(thrown).message;
        this.#context.log.warn('versions of policies could not be read; tried again', { reason });
        return { type: 'loaded', turn, versions: new Map(), isComplete: false };
      },
    );
  }

  /** @throws what the store throws; a version that cannot be used is an answer. */
  async #fetch(ids: readonly string[]): Promise<ReadonlyMap<string, LoadedVersion<Policy>>> {
    const { store, keys, versionOf } = this.#options;
    const versions = new Map<string, LoadedVersion<Policy>>();
    for (const id of ids) {
      const until = { deadlineMs: this.#context.clock.nowMs() + callMs };
      const [record, artifact, batching] = await Promise.all([
        store.get(keys.policyVersion(id), until),
        store.get(keys.policyArtifact(id), until),
        store.get(keys.policyBatching(id), until),
      ]);
      try {
        if (record.entry === undefined || artifact.entry === undefined) throw new Error('it is not in the store');
        const { sha256, batching: second } = readVersion(record.entry.value);
        if (second !== undefined && batching.entry === undefined)
          throw new Error('its batching file is not in the store');
        versions.set(id, {
          policy: versionOf({
            ...{ artifact: artifact.entry.value, sha256 },
            ...(second === undefined
              ? {}
              : { batching: { artifact: batching.entry?.value ?? '', sha256: second.sha256 } }),
          }),
        });
      } catch (error) {
        versions.set(id, { refused: messageOf(error) });
      }
    }
    return versions;
  }

  #onLoaded(versions: ReadonlyMap<string, LoadedVersion<Policy>>, isComplete: boolean): void {
    if (!isComplete) {
      this.#context.schedule(retryMs, { type: 'load', turn: this.#turn });
      return;
    }
    const { onRefused, follow } = this.#options;
    const pointer = this.#pointer;
    for (const [id, version] of versions) {
      const before = this.#versions.get(id);
      this.#versions.set(id, version);
      const isNews =
        'refused' in version && !(before !== undefined && 'refused' in before && before.refused === version.refused);
      if (!isNews) continue;
      this.#context.log.error('a policy is refused; its rule serves', { policy: id, reason: version.refused });
      onRefused?.(id);
      if (id === pointer.policy) this.#tell(`refuses policy ${id}: ${version.refused}`);
    }
    const wanted = loadedVersions(pointer);
    for (const id of this.#versions.keys()) if (!wanted.has(id)) this.#versions.delete(id);
    this.#isFollowing = true;
    const policy = this.#policyOf(pointer.policy);
    follow(pointer, policy, this.#policyOf(pointer.base) ?? this.#usable(pointer.previous));
    this.#context.log.info('policies', { number: pointer.number, what: pointerText(pointer) });
    this.#looks = 0;
  }

  #policyOf(reference: string): Policy | undefined {
    if (!reference.includes('@')) return this.#options.ruleOf(reference);
    const version = this.#versions.get(reference);
    return version !== undefined && 'policy' in version ? version.policy : undefined;
  }

  /** What decides where the base cannot: the newest before it that can, or what the host was started with. */
  #usable(references: readonly string[]): Policy {
    for (const reference of references) {
      const policy = this.#policyOf(reference);
      if (policy !== undefined) return policy;
    }
    return this.#options.ruleOf(noPointer.base);
  }

  #look(): void {
    const { mode } = this.#pointer;
    if (!this.#isFollowing || this.#isWriting || mode === 'rule') return;
    const { sighting, verdict } = this.#options.look();
    if (verdict !== '') this.#takeBack(verdict);
    else if (this.#looks++ % sightingLooks === 0) this.#write(sighting);
  }

  #write({ figures, groups }: Pick<PolicySighting, 'figures' | 'groups'>): void {
    const { host, store, keys } = this.#options;
    const { policy, number } = this.#pointer;
    const version = this.#versions.get(policy);
    const refused = version !== undefined && 'refused' in version ? version.refused : '';
    const value = JSON.stringify({
      format: 1,
      host,
      policy,
      number,
      refused,
      figures,
      groups,
    } satisfies PolicySighting);
    if (value === this.#lastSighting) return;
    this.#lastSighting = value;
    const put = { type: 'put', key: keys.policySighting(host), value } as const;
    this.#carryOut(
      store.transact({ conditions: [], operations: [put] }, { deadlineMs: this.#context.clock.nowMs() + callMs }),
    );
  }

  /** By compare-and-swap: when somebody changed the pointer meanwhile, that is followed and nothing is taken back. */
  #takeBack(reason: string): void {
    const { host, store, keys, onTakenBack } = this.#options;
    const { policy, baseLate } = this.#pointer;
    const wallMs = this.#context.clock.wallMs();
    const note = { gates: [], forced: '', reason: `taken back by host ${host}: ${reason}`, host, wallMs, baseLate };
    const pointer = nextPointer(this.#pointer, { kind: 'rollback' }, note);
    this.#context.log.error('the policy is taken back', { policy, reason });
    const text = `policy ${policy} is taken back by host ${host}: ${reason}; ${pointerText(pointer)}`;
    this.#carryOut(
      writeWithEvent({
        store,
        keys,
        pointer,
        revision: this.#revision,
        event: { level: 'warn', subject: 'policies', text, wallMs },
        deadlineMs: this.#context.clock.nowMs() + callMs,
      }).then((isWritten) => {
        if (isWritten) onTakenBack?.(policy);
      }),
    );
  }

  #tell(text: string): void {
    const { host, store, keys } = this.#options;
    const event = { level: 'warn', subject: `host ${host}`, text, wallMs: this.#context.clock.wallMs() } as const;
    this.#carryOut(writeWithEvent({ store, keys, event, deadlineMs: this.#context.clock.nowMs() + callMs }));
  }

  #carryOut(work: Promise<unknown>): void {
    this.#isWriting = true;
    this.#context.pipeToSelf(
      work,
      () => ({ type: 'done', failed: '' }),
      (thrown) => ({ type: 'done', failed: asIntarsiaError(thrown).message }),
    );
  }

  #lookLater(): void {
    this.#context.schedule(this.#options.lookMs ?? lookMsDefault, { type: 'look' });
  }
}
