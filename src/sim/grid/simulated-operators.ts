/**
 * Operators of a simulated grid: they deploy, update, scale, drain and cordon, one thing after the other, and try again until
 * the store has it.
 */
import type { GridKeys } from '#core/grid/keys.js';
import type { Deployment, HostOrder, ModelManifest } from '#core/grid/records.js';
import { hostId, modelName, modelVersion } from '#core/ids.js';
import type { Clock } from '#ports/clock.js';
import type { Store, StoreOperation } from '#ports/store.js';
import type { GridScenario, OperatorEvent } from './scenario.js';
import { modelOf } from './simulated-models.js';
import type { StoreObserver } from './store-observer.js';

export interface OperatorsOptions {
  readonly store: Store;
  readonly keys: GridKeys;
  readonly clock: Clock;
  readonly deployments: GridScenario['deployments'];
}

export class SimulatedOperators {
  /** What they want, as they said it last, by name. */
  readonly deployed = new Map<string, Deployment>();
  readonly #options: OperatorsOptions;
  /** Ends when everything that they did is in the store. */
  #written: Promise<unknown> = Promise.resolve();

  constructor(options: OperatorsOptions) {
    this.#options = options;
  }

  /** Puts them into the store, as hosts with a repository do. */
  publish(manifests: readonly ModelManifest[]): void {
    for (const manifest of manifests) {
      this.#write([put(this.#options.keys.model(manifest.model, manifest.version), manifest)]);
    }
  }

  deploy(name: string, version: number, replicas: number): void {
    const deployment: Deployment = {
      format: 1,
      name,
      model: modelName(modelOf(this.#options.deployments.find((each) => each.name === name) ?? { name })),
      version: modelVersion(String(version)),
      replicas,
      constraints: {},
      spread: 'host',
      memoryBytes: 0,
      rollout: { surge: 1, progressMsMax: 60_000 },
    };
    this.deployed.set(name, deployment);
    this.#write([put(this.#options.keys.deployment(name), deployment)]);
  }

  operate({ kind, subject, amount }: OperatorEvent): void {
    const deployment = this.deployed.get(subject);
    switch (kind) {
      case 'update':
        if (deployment !== undefined) this.deploy(subject, amount, deployment.replicas ?? 1);
        return;
      case 'scale':
        if (deployment !== undefined) this.deploy(subject, Number(deployment.version), amount);
        return;
      case 'cordon':
        this.#order(subject, { cordoned: true, draining: false }, 0);
        return;
      case 'drain':
        this.#order(subject, { cordoned: true, draining: true }, amount);
        return;
      case 'uncordon':
      case 'undrain':
        this.#write([{ type: 'delete', key: this.#options.keys.order(hostId(subject)) }]);
    }
  }

  /** @param withinMs Of a drain: the time after which the host leaves; 0: it stays. */
  #order(host: string, order: Pick<HostOrder, 'cordoned' | 'draining'>, withinMs: number): void {
    const deadlineWallMs = withinMs === 0 ? 0 : this.#options.clock.wallMs() + withinMs;
    const record: HostOrder = { format: 1, ...order, deadlineWallMs, reason: 'simulated' };
    this.#write([put(this.#options.keys.order(hostId(host)), record)]);
  }

  /** An operator tries again until the store has it, and does one thing after the other. */
  #write(operations: readonly StoreOperation[]): void {
    const { clock, store } = this.#options;
    const attempt = (): Promise<unknown> =>
      store
        .transact({ conditions: [], operations }, { deadlineMs: clock.nowMs() + 2_000 })
        .catch(() => new Promise((resolve) => clock.schedule(500, () => resolve(undefined))).then(attempt));
    this.#written = this.#written.then(attempt);
  }

  /** The planted thief: gives a host copies that are another's. */
  rob(assignments: StoreObserver['assignments'], names: readonly string[]): void {
    const [victim, other] = [...assignments].filter(([, { record }]) => record.replicas.length > 0);
    if (victim === undefined) return;
    const [host, { record }] = victim;
    const thief = hostId(other?.[0] ?? names.find((name) => name !== host) ?? '');
    const stolen = { ...record, host: thief, epoch: record.epoch - 1 };
    const { store, keys } = this.#options;
    void store.transact(
      { conditions: [], operations: [put(keys.assignment(thief), stolen)] },
      { deadlineMs: Infinity },
    );
  }
}

function put(key: string, value: unknown): StoreOperation {
  return { type: 'put', key, value: JSON.stringify(value) };
}
