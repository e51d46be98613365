/**
 * What a host says of itself in the store: its replicas under its lease, the facts of what it serves, the manifests of its
 * own models. Written only when it differs from what was written before; never by an incarnation that is over.
 */
import type { Catalog, ServedModel } from '#core/catalog.js';
import { asIntarsiaError } from '#core/errors.js';
import { modelRecords, type ModelRecord } from '#core/grid/model-records.js';
import type { ActualReplica, HostActual } from '#core/grid/records.js';
import { publishedFacts } from '#core/grid/served-facts.js';
import { pieceModelName } from '#core/split/split-spec.js';
import type { StoreOperation } from '#ports/store.js';
import type { DeviceStatus, SessionStatus } from '#actors/device/protocol.js';
import type { OwnRegistration } from '#actors/membership/protocol.js';
import type { ActorContext } from '#runtime/actor.js';
import type { CompleteAgentOptions } from './options.js';
import type { AgentReplica } from './protocol.js';

export type PublishOutcome =
  | 'published'
  /** Another incarnation of this host is registered. */
  | 'fenced'
  | 'failed';

export interface PublicationInput {
  readonly self: OwnRegistration;
  readonly catalog: Catalog;
  readonly replicas: readonly AgentReplica[];
  readonly degraded: ReadonlyMap<string, string>;
  readonly assignmentRevision: number;
}

/** A device that does not answer within this time is told of without its memory, ms. */
const statusMsMax = 2_000;
/** A model of which the manifest could not be made is not looked at again before it is loaded anew. */
const describedMax = 4_096;
const reasonLengthMax = 1_000;

export class Publication {
  readonly #options: CompleteAgentOptions;
  readonly #context: ActorContext<never>;
  /** What is in the store, as far as this host has written it. */
  #written = '';
  readonly #factsWritten = new Set<string>();
  readonly #described = new Set<string>();
  readonly #fingerprints = new WeakMap<ServedModel, { readonly fingerprint: string; readonly value: string }>();

  constructor(options: CompleteAgentOptions, context: ActorContext<never>) {
    this.#options = options;
    this.#context = context;
  }

  /** A new incarnation, or another store: everything is written again. */
  forget(): void {
    this.#written = '';
    this.#factsWritten.clear();
    this.#described.clear();
  }

  /** @throws what the store throws. */
  async publish(input: PublicationInput): Promise<PublishOutcome> {
    const { host, keys, store } = this.#options;
    const actual = await this.#actual(input);
    await this.#publishFacts(input, actual);
    await this.#publishManifests(input);
    const value = JSON.stringify(actual);
    const written = `${input.self.lease} ${value}`;
    if (written === this.#written) return 'published';
    const put: StoreOperation = { type: 'put', key: keys.actual(host), value, lease: input.self.lease };
    const outcome = await store.transact(
      {
        conditions: [{ key: keys.host(host), test: 'createRevision', equals: input.self.generation }],
        operations: [put],
      },
      this.#deadline(),
    );
    if (!outcome.ok) return 'fenced';
    this.#written = written;
    return 'published';
  }

  async #actual({ catalog, replicas, degraded, assignmentRevision }: PublicationInput): Promise<HostActual> {
    const sessions = await this.#sessions();
    const shown = replicas.map((replica): ActualReplica => {
      const { model, version, device, state, reason, deployment, split, shard } = replica;
      const name = pieceModelName(replica);
      const served = catalog.models.get(name)?.served.get(version);
      const isThere = served?.devices.includes(device) === true;
      const held = sessions.get(`${device} ${name}/${version}`);
      return {
        model,
        version,
        device,
        state,
        reason: reason.slice(0, reasonLengthMax),
        digest: isThere ? served.digest : '',
        memoryBytes: held?.memoryBytes ?? 0,
        ...(held?.variant === undefined ? {} : { variant: held.variant, variantGate: held.variantGate ?? '' }),
        ...(isThere ? { facts: this.#factsOf(served).fingerprint } : {}),
        deployment,
        ...(split === undefined || shard === undefined ? {} : { split, shard }),
      };
    });
    const { host } = this.#options;
    return { format: 1, host, assignmentRevision, replicas: shown, degraded: Object.fromEntries(degraded) };
  }

  async #sessions(): Promise<ReadonlyMap<string, SessionStatus>> {
    const sessions = new Map<string, SessionStatus>();
    const deadlineMs = this.#context.clock.nowMs() + statusMsMax;
    await Promise.all(
      this.#options.devices.map(async ({ id, ref }) => {
        try {
          const status = await ref.ask<DeviceStatus>((replyTo) => ({ type: 'status', replyTo }), { deadlineMs });
          for (const session of status.sessions) {
            sessions.set(`${id} ${session.model}/${session.version}`, session);
          }
        } catch (thrown) {
          this.#context.log.debug(`${id} did not say what it holds: ${asIntarsiaError(thrown).message}`);
        }
      }),
    );
    return sessions;
  }

  #factsOf(served: ServedModel): { readonly fingerprint: string; readonly value: string } {
    let facts = this.#fingerprints.get(served);
    if (facts === undefined) {
      const { fingerprint, record } = publishedFacts(served);
      facts = { fingerprint, value: JSON.stringify(record) };
      this.#fingerprints.set(served, facts);
    }
    return facts;
  }

  /** Before the replicas that name them. */
  async #publishFacts({ catalog }: PublicationInput, { replicas }: HostActual): Promise<void> {
    const { keys, store } = this.#options;
    for (const replica of replicas) {
      const { version, facts } = replica;
      const served = catalog.models.get(pieceModelName(replica))?.served.get(version);
      if (facts === undefined || served === undefined || this.#factsWritten.has(facts)) continue;
      const key = `${keys.served}${facts}`;
      // Others may have written the same: another revision keeps it from being swept as a thing of the past.
      await store.transact(
        { conditions: [], operations: [{ type: 'put', key, value: this.#factsOf(served).value }] },
        this.#deadline(),
      );
      this.#factsWritten.add(facts);
    }
    // What is not referred to may be swept: it is written again when it is served again.
    const referred = new Set(replicas.map(({ facts }) => facts));
    for (const facts of this.#factsWritten) if (!referred.has(facts)) this.#factsWritten.delete(facts);
  }

  /** So that hosts without these models can be given them. */
  async #publishManifests({ replicas }: PublicationInput): Promise<void> {
    const { keys, artifacts, isOwn } = this.#options;
    // Of deployed models too: a store that was wiped has forgotten theirs.
    for (const { model, version } of replicas) {
      const text = `${model}/${version}`;
      if (this.#described.has(text) || !isOwn(model, version)) continue;
      if (this.#described.size >= describedMax) return;
      const described = await this.#describe(async () => {
        const manifest = await artifacts.describe(model, version);
        return { manifest, variants: manifest === undefined ? [] : await artifacts.variants(model, version) };
      }, text);
      if (described?.manifest !== undefined) {
        const { manifest, variants } = described;
        const { host } = this.#options;
        const records = modelRecords({ keys, manifest, variants, host, wallMs: this.#context.clock.wallMs() });
        await this.#offer(records, text);
      }
      this.#described.add(text);
    }
  }

  /** Where the manifest is there already, what is not known of its variants yet is added. */
  async #offer([manifest, ...verifications]: readonly ModelRecord[], text: string): Promise<void> {
    if (manifest === undefined) return;
    const { store } = this.#options;
    const write = (records: readonly ModelRecord[]): Promise<{ readonly ok: boolean }> =>
      store.transact(
        {
          conditions: records.map(({ key }) => ({ key, test: 'absent' })),
          operations: records.map(({ key, value }) => ({ type: 'put', key, value })),
        },
        this.#deadline(),
      );
    if ((await write([manifest, ...verifications])).ok) return;
    if (!(await this.#isSame(manifest, text))) return;
    for (const verification of verifications) await write([verification]);
  }

  async #describe<Described>(
    describe: () => Promise<Described | undefined>,
    text: string,
  ): Promise<Described | undefined> {
    try {
      return await describe();
    } catch (thrown) {
      this.#context.log.warn(`${text} cannot be offered to other hosts: ${asIntarsiaError(thrown).message}`);
      return undefined;
    }
  }

  /** Two hosts may have different files under one version: the first one's are the grid's. */
  async #isSame({ key, value }: ModelRecord, text: string): Promise<boolean> {
    const { entry } = await this.#options.store.get(key, this.#deadline());
    if (entry === undefined || entry.value === value) return entry !== undefined;
    this.#context.log.warn(`the grid has other files of ${text} than this host's repository`, { key });
    return false;
  }

  #deadline(): { readonly deadlineMs: number } {
    return { deadlineMs: this.#context.clock.nowMs() + this.#options.callMs };
  }
}
