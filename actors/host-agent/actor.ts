/**
 * The host agent as an actor: carries out what behavior.ts decides, and keeps `actual/<host>` in the store true. It serves on
 * with what it has when the store is away, when its lease is lost, when nobody leads.
 */
import type { Catalog } from '#core/catalog.js';
import { asIntarsiaError, type IntarsiaError } from '#core/errors.js';
import type { Edition, HostAssignment } from '#core/grid/records.js';
import { editionText } from '#core/grid/rollout.js';
import type { ModelName } from '#core/ids.js';
import type { HeldModel } from '#ports/artifact-source.js';
import type { OwnRegistration, ViewNews } from '#actors/membership/protocol.js';
import type { ImposeOutcome } from '#actors/model-registry/protocol.js';
import type { Actor, ActorContext, ActorFactory, ReplyTo, Signal } from '#runtime/actor.js';
import { StoreFollower, type FollowerMessage } from '#runtime/store-follower.js';
import { AgentBehavior, type AgentEffect } from './behavior.js';
import { fetchModel } from './fetch-model.js';
import { completeAgent, type CompleteAgentOptions, type HostAgentOptions } from './options.js';
import type { HostAgentMessage } from './protocol.js';
import { Publication, type PublishOutcome } from './publication.js';

/** What the host agent receives: its protocol, and its own news. */
export type HostAgentInbox =
  | HostAgentMessage
  | FollowerMessage<'assignment'>
  | { readonly type: 'view-news'; readonly news: ViewNews }
  | { readonly type: 'fetched'; readonly edition: Edition; readonly held: HeldModel }
  | { readonly type: 'fetch-failed'; readonly edition: Edition; readonly error: IntarsiaError }
  | { readonly type: 'imposed'; readonly model: ModelName; readonly outcome: ImposeOutcome }
  | { readonly type: 'wake'; readonly wake: number }
  | { readonly type: 'publish' }
  | { readonly type: 'published'; readonly outcome: PublishOutcome }
  | { readonly type: 'nothing' };

/** Spawn one a host with devices, as `host-agent`, after `membership` and `model-registry`. What it holds survives a restart. */
export function hostAgentActor(options: HostAgentOptions): ActorFactory<HostAgentInbox> {
  const complete = completeAgent(options);
  const state: AgentState = { behavior: new AgentBehavior(complete, options.catalog), held: new Map() };
  return (context) => new HostAgent(complete, state, context);
}

interface AgentState {
  readonly behavior: AgentBehavior;
  /** By edition. */
  readonly held: Map<string, HeldModel>;
}

class HostAgent implements Actor<HostAgentInbox> {
  readonly #options: CompleteAgentOptions;
  readonly #context: ActorContext<HostAgentInbox>;
  readonly #behavior: AgentBehavior;
  readonly #held: Map<string, HeldModel>;
  readonly #follower: StoreFollower<'assignment'>;
  readonly #publication: Publication;
  readonly #viewSubscriber: ReplyTo<ViewNews>;
  readonly #degraded = new Map<string, string>();
  #catalog: Catalog;
  #self: OwnRegistration | undefined;
  #assignment: { readonly record: HostAssignment; readonly revision: number } | undefined;
  #assignmentRevision = 0;
  #wake = 0;
  #isPublishDue = false;
  #isPublishing = false;
  #isDirty = false;
  #failures = 0;

  constructor(options: CompleteAgentOptions, { behavior, held }: AgentState, context: ActorContext<HostAgentInbox>) {
    this.#options = options;
    this.#context = context;
    this.#behavior = behavior;
    this.#held = held;
    this.#catalog = options.catalog;
    this.#publication = new Publication(options, context);
    const { store, keys, host, callMs } = options;
    this.#follower = new StoreFollower(
      {
        folder: 'assignment',
        store,
        prefix: keys.assignment(host),
        callMs,
        retryMsMin: 250,
        retryMsMax: 5_000,
      },
      context,
    );
    this.#follower.start();
    const { self } = context;
    this.#viewSubscriber = { tell: (news) => self.tell({ type: 'view-news', news }) };
    options.membership.tell({ type: 'subscribe', subscriber: this.#viewSubscriber, about: 'members' });
    this.#after(behavior.recover(context.clock.nowMs()));
  }

  receive(message: HostAgentInbox): void {
    const nowMs = this.#context.clock.nowMs();
    switch (message.type) {
      case 'nothing':
        return;
      case 'catalog':
        this.#catalog = message.catalog;
        this.#after(this.#behavior.catalog(message.catalog, nowMs));
        return;
      case 'device-health':
        if (message.reason === '') this.#degraded.delete(message.device);
        else this.#degraded.set(message.device, message.reason);
        this.#publishSoon();
        return;
      case 'status':
        message.replyTo.tell({
          replicas: this.#behavior.replicas(),
          ruled: this.#behavior.ruled(),
          assignmentRevision: this.#assignmentRevision,
        });
        return;
      case 'follower':
        this.#onFollower(message);
        return;
      case 'view-news':
        this.#onView(message.news);
        return;
      case 'fetched':
        this.#hold(message.edition, message.held);
        this.#after(this.#behavior.fetched(message.edition, message.held.manifest.digest, nowMs));
        return;
      case 'fetch-failed':
        this.#context.log.warn(`files of ${editionText(message.edition)} cannot be had: ${message.error.message}`);
        this.#after(this.#behavior.fetchFailed(message.edition, message.error, nowMs));
        return;
      case 'imposed':
        this.#after(this.#behavior.imposed(message.model, message.outcome, nowMs));
        return;
      case 'wake':
        if (message.wake === this.#wake) this.#after(this.#behavior.step(nowMs));
        return;
      case 'publish':
        this.#isPublishDue = false;
        this.#publish();
        return;
      case 'published':
        this.#onPublished(message.outcome);
    }
  }

  signal(signal: Signal): void {
    if (signal.type === 'drain') this.#context.stop();
    if (signal.type !== 'post-stop' && signal.type !== 'pre-restart') return;
    this.#follower.stop();
    this.#options.membership.tell({ type: 'unsubscribe', subscriber: this.#viewSubscriber });
  }

  #onFollower(message: FollowerMessage<'assignment'>): void {
    const key = this.#options.keys.assignment(this.#options.host);
    // Other hosts' names may begin like this one's.
    if (!this.#follower.handle(message).has(key)) return;
    const entry = this.#follower.entries.get(key);
    this.#assignment = undefined;
    if (entry === undefined) return;
    try {
      this.#assignment = { record: JSON.parse(entry.value) as HostAssignment, revision: entry.modRevision };
    } catch {
      this.#context.log.warn('what this host was assigned cannot be read', { key });
      return;
    }
    this.#carryOut();
  }

  #onView({ self }: ViewNews): void {
    const before = this.#self;
    this.#self = self;
    if (self === undefined || (before?.generation === self.generation && before.lease === self.lease)) return;
    this.#publication.forget();
    this.#publishSoon();
    this.#carryOut();
  }

  #carryOut(): void {
    if (this.#assignment === undefined || this.#self === undefined) return;
    const { record, revision } = this.#assignment;
    if (record.generation !== this.#self.generation) return;
    this.#assignmentRevision = revision;
    this.#after(this.#behavior.assigned(record, this.#self.generation, this.#context.clock.nowMs()));
  }

  #after(effects: readonly AgentEffect[]): void {
    for (const effect of effects) this.#perform(effect);
    this.#wake += 1;
    const dueMs = this.#behavior.dueMs();
    if (dueMs < Infinity) {
      const delayMs = Math.max(1, dueMs - this.#context.clock.nowMs());
      this.#context.schedule(delayMs, { type: 'wake', wake: this.#wake });
    }
    this.#publishSoon();
  }

  #perform(effect: AgentEffect): void {
    switch (effect.type) {
      case 'rule':
        this.#options.onRuled(effect.models, effect.splits);
        return;
      case 'fetch': {
        const { edition } = effect;
        this.#context.pipeToSelf(
          fetchModel(edition, this.#options, this.#context.clock),
          (held) => ({ type: 'fetched', edition, held }),
          (thrown) => ({ type: 'fetch-failed', edition, error: asIntarsiaError(thrown) }),
        );
        return;
      }
      case 'release': {
        const text = editionText(effect.edition);
        const held = this.#held.get(text);
        this.#held.delete(text);
        if (held !== undefined) this.#release(held);
        return;
      }
      case 'impose':
        this.#impose(effect);
    }
  }

  #hold(edition: Edition, held: HeldModel): void {
    const text = editionText(edition);
    const before = this.#held.get(text);
    this.#held.set(text, held);
    if (before !== undefined) this.#release(before);
  }

  #release(held: HeldModel): void {
    const done = { type: 'nothing' } as const;
    this.#context.pipeToSelf(
      held.release(),
      () => done,
      () => done,
    );
  }

  #impose({ model, versions, forms }: Extract<AgentEffect, { type: 'impose' }>): void {
    const { registry, imposeMsMax } = this.#options;
    this.#context.pipeToSelf(
      registry.ask<ImposeOutcome>((replyTo) => ({ type: 'impose', model, versions, forms, replyTo }), {
        deadlineMs: this.#context.clock.nowMs() + imposeMsMax,
      }),
      (outcome) => ({ type: 'imposed', model, outcome }),
      (thrown) => ({ type: 'imposed', model, outcome: { failures: [], error: asIntarsiaError(thrown) } }),
    );
  }

  #publishSoon(): void {
    this.#isDirty = true;
    if (this.#isPublishDue || this.#isPublishing) return;
    this.#isPublishDue = true;
    this.#context.schedule(this.#options.publishMsMin, { type: 'publish' });
  }

  #publish(): void {
    const self = this.#self;
    if (self === undefined || this.#isPublishing || !this.#isDirty) return;
    this.#isDirty = false;
    this.#isPublishing = true;
    const failed: HostAgentInbox = { type: 'published', outcome: 'failed' };
    this.#context.pipeToSelf(
      this.#publication.publish({
        self,
        catalog: this.#catalog,
        replicas: this.#behavior.replicas(),
        degraded: this.#degraded,
        assignmentRevision: this.#assignmentRevision,
      }),
      (outcome) => ({ type: 'published', outcome }),
      (thrown) => {
        this.#context.log.warn(`what this host serves could not be published: ${asIntarsiaError(thrown).message}`);
        return failed;
      },
    );
  }

  #onPublished(outcome: PublishOutcome): void {
    this.#isPublishing = false;
    if (outcome === 'published') {
      this.#failures = 0;
      if (this.#isDirty) this.#publishSoon();
      return;
    }
    // Of another incarnation: membership tells when there is a new one.
    if (outcome === 'fenced' && !this.#isDirty) return;
    const { retryMsMin, retryMsMax } = this.#options;
    const waitMs = Math.min(retryMsMax, retryMsMin * 2 ** Math.min(this.#failures, 16));
    this.#failures += 1;
    this.#isDirty = true;
    this.#isPublishDue = true;
    this.#context.schedule(waitMs, { type: 'publish' });
  }
}
