/**
 * The model registry as an actor: carries out what behavior.ts decides. What it waits for comes back as messages.
 */
import { asIntarsiaError, intarsiaError } from '#core/errors.js';
import type { ModelVersion, DeviceId } from '#core/ids.js';
import type { Actor, ActorContext, ActorFactory, Signal } from '#runtime/actor.js';
import { RegistryBehavior } from './behavior.js';
import type { RegistryEffect, RegistryEvent, Removal } from './events.js';
import type { ModelRegistryOptions } from './options.js';
import { loadMsMaxDefault, placeImposed, placeVersion } from './place-version.js';
import { prepareModel } from './prepare-model.js';
import type { ModelRegistryMessage } from './protocol.js';
import { Turnstile } from './turnstile.js';

/** What the registry receives: its protocol, and its own news. */
export type ModelRegistryInbox =
  | RegistryEvent
  | Lend
  | { readonly type: 'release'; readonly version: { release(): Promise<void> } }
  | { readonly type: 'nothing' };

type Lend = Extract<ModelRegistryMessage, { readonly type: 'lend' }>;

const preparationsMaxDefault = 2;
const waitingMaxDefault = 64;
const keepReplacedMsDefault = 60_000;

/**
 * The registry of a host. Spawn one; send it `scan` once at start in every mode.
 * What is loaded survives a restart of the actor.
 */
export function modelRegistryActor(options: ModelRegistryOptions): ActorFactory<ModelRegistryInbox> {
  const behavior = new RegistryBehavior({
    mode: options.mode,
    startupModels: options.startupModels,
    waitingMax: options.waitingMax ?? waitingMaxDefault,
  });
  let isFirst = true;
  return (context) => {
    const registry = new ModelRegistry(options, behavior, context);
    if (!isFirst) registry.recover();
    isFirst = false;
    return registry;
  };
}

class ModelRegistry implements Actor<ModelRegistryInbox> {
  readonly #options: ModelRegistryOptions;
  readonly #behavior: RegistryBehavior;
  readonly #context: ActorContext<ModelRegistryInbox>;
  readonly #preparations: Turnstile;
  readonly #devicePaths = new Map<string, DeviceId>();

  constructor(options: ModelRegistryOptions, behavior: RegistryBehavior, context: ActorContext<ModelRegistryInbox>) {
    this.#options = options;
    this.#behavior = behavior;
    this.#context = context;
    this.#preparations = new Turnstile(options.preparationsMax ?? preparationsMaxDefault);
    for (const { descriptor, ref } of options.devices) {
      this.#devicePaths.set(`${ref.address.host} ${ref.address.path}`, descriptor.id);
      context.watch(ref);
    }
  }

  receive(message: ModelRegistryInbox): void {
    switch (message.type) {
      case 'nothing':
        return;
      case 'release':
        this.#release(message.version);
        return;
      case 'lend':
        this.#lend(message);
        return;
      default:
        this.#perform(this.#behavior.handle(message));
    }
  }

  signal(signal: Signal): void {
    if (signal.type === 'terminated') {
      const { host, path } = signal.address;
      const device = this.#devicePaths.get(`${host} ${path}`);
      if (device !== undefined) this.#perform(this.#behavior.handle({ type: 'device-gone', device }));
    } else if (signal.type === 'drain') {
      this.#context.stop();
    }
  }

  /** After a restart. */
  recover(): void {
    this.#perform(this.#behavior.recover());
  }

  #perform(effects: readonly RegistryEffect[]): void {
    for (const effect of effects) this.#carryOut(effect);
  }

  #carryOut(effect: RegistryEffect): void {
    const { files } = this.#options;
    const context = this.#context;
    switch (effect.type) {
      case 'publish':
        this.#options.publish(effect.catalog);
        return;
      case 'reply':
        effect.to.tell(effect.outcome);
        return;
      case 'reply-imposed':
        effect.to.tell(effect.outcome);
        return;
      case 'tell-catalog':
        effect.to.tell(effect.catalog);
        return;
      case 'log':
        context.log[effect.level](effect.message, { model: effect.model });
        return;
      case 'poll-later':
        context.schedule(this.#options.pollMs, { type: 'poll' });
        return;
      case 'list':
        context.pipeToSelf(
          files.list(),
          (listing) => ({ type: 'listed', listing }),
          (thrown) => ({ type: 'list-failed', error: asIntarsiaError(thrown) }),
        );
        return;
      case 'prepare': {
        const { model, operation, overrides, imposed } = effect;
        context.pipeToSelf(
          this.#preparations.pass(() => prepareModel(model, overrides, { files, random: context.random }, imposed)),
          (prepared) => ({ type: 'prepared', model, operation, prepared }),
          (thrown) => ({ type: 'prepare-failed', model, operation, error: asIntarsiaError(thrown) }),
        );
        return;
      }
      case 'place': {
        const { operation, prepared, previous, imposed } = effect;
        const { placement, variants = [] } = prepared;
        const { model } = placement;
        const ports = { clock: context.clock, options: this.#options, variants };
        context.pipeToSelf(
          imposed === undefined
            ? placeVersion(placement, previous, ports)
            : placeImposed(placement, imposed, previous, ports),
          (result) => ({ type: 'placed', model, operation, prepared, result }),
          (thrown) => ({
            type: 'placed',
            model,
            operation,
            prepared,
            result: { devices: [], failures: [], forms: new Map(), error: asIntarsiaError(thrown), notes: [] },
          }),
        );
        return;
      }
      case 'remove': {
        const { model, operation, removals } = effect;
        const removed: ModelRegistryInbox = { type: 'removed', model, operation };
        context.pipeToSelf(
          Promise.all(removals.map((removal) => this.#unload(removal))),
          () => removed,
          () => removed,
        );
        return;
      }
      case 'release':
        if (effect.replaced) {
          const keepMs = this.#options.keepReplacedMs ?? keepReplacedMsDefault;
          context.schedule(keepMs, { type: 'release', version: effect.version });
        } else {
          this.#release(effect.version);
        }
    }
  }

  #lend({ model, version, replyTo }: Lend): void {
    const { files } = this.#options;
    const { random } = this.#context;
    this.#context.pipeToSelf(
      this.#preparations.pass(async () => {
        const { versions } = await prepareModel(model, { files: new Map() }, { files, random }, [version]);
        const [outcome] = versions;
        if (outcome === undefined) throw intarsiaError('NOT_FOUND', `${model} has no version ${version} here`);
        if (!outcome.ok) throw outcome.error;
        const { prepared } = outcome;
        replyTo.tell({ ok: true, placement: prepared.placement, release: () => prepared.release() });
      }),
      () => ({ type: 'nothing' }),
      (thrown) => {
        replyTo.tell({ ok: false, error: asIntarsiaError(thrown) });
        return { type: 'nothing' };
      },
    );
  }

  async #unload({ model, version, devices }: Removal): Promise<void> {
    await Promise.all(devices.map((device) => this.#unloadFrom(device, model, version)));
  }

  async #unloadFrom(device: DeviceId, model: Removal['model'], version: ModelVersion): Promise<void> {
    const found = this.#options.devices.find(({ descriptor }) => descriptor.id === device);
    if (found === undefined) return;
    const deadlineMs = this.#context.clock.nowMs() + (this.#options.loadMsMax ?? loadMsMaxDefault);
    try {
      await found.ref.ask<{ readonly ok: true }>((replyTo) => ({ type: 'unload', model, version, replyTo }), {
        deadlineMs,
      });
    } catch (thrown) {
      const { message } = asIntarsiaError(thrown);
      this.#context.log.warn(`version ${version} may still be on ${device}: ${message}`, { model });
    }
  }

  #release(version: { release(): Promise<void> }): void {
    this.#context.pipeToSelf(
      version.release(),
      () => ({ type: 'nothing' }),
      (thrown) => {
        this.#context.log.warn(`files of a model could not be freed: ${asIntarsiaError(thrown).message}`);
        return { type: 'nothing' };
      },
    );
  }
}
