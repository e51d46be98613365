/**
 * A grid as its desk sees it, without hosts: a pretended store on the real clock, records as hosts and a leader would write
 * them, and a view of two hosts. The desk and everything in front of it are the real ones.
 */
import type { ViewNews } from '#actors/membership/protocol.js';
import { NodeClock } from '#adapters/node/clock.js';
import { gridKeys } from '#core/grid/keys.js';
import type { GridEvent, HostRecord, ViewHost } from '#core/grid/records.js';
import { deviceId, hostId, type HostId } from '#core/ids.js';
import type { ModelConfig } from '#core/model-config.js';
import type { SplitGate } from '#ports/split-gate.js';
import type { Store } from '#ports/store.js';
import { GridDesk } from '#server/grid-desk.js';
import { PretendStore } from '#sim/pretend-store.js';
import { policyTools } from '#compose/promotion.js';

export const keys = gridKeys('test');
const never = { deadlineMs: Infinity };

export class PretendGrid {
  readonly clock = new NodeClock();
  readonly store = new PretendStore({ clock: this.clock, latencyMs: [0, 0] });
  readonly operator: Store = this.store.client('operator');
  readonly desk: GridDesk;
  readonly #own: Store = this.store.client('a');
  readonly #hosts = new Map<HostId, ViewHost>();
  #revision = 1;

  /** `wrap`: in front of the desk's client, to see or to disturb its calls. */
  constructor(
    wrap: (store: Store) => Store = (store) => store,
    gate?: SplitGate,
    configOf?: () => ModelConfig | undefined,
  ) {
    this.desk = new GridDesk({
      grid: 'test',
      host: hostId('a'),
      store: wrap(this.#own),
      storeKind: 'pretended at nowhere',
      keys,
      clock: this.clock,
      ...(gate === undefined ? {} : { gate }),
      ...(configOf === undefined ? {} : { configOf }),
      policyTools,
    });
    this.setHost('a');
    this.setHost('b', { role: 'host', zone: 'east' });
  }

  setHost(name: string, record: Partial<HostRecord> = {}, state: Partial<ViewHost> = {}): void {
    const host = hostId(name);
    this.#hosts.set(host, {
      record: {
        format: 1,
        host,
        process: `process of ${name}`,
        linkAddress: `10.0.0.1:${this.#hosts.size}`,
        grpcEndpoint: `10.0.0.1:80${this.#hosts.size}`,
        httpEndpoint: '',
        role: 'host',
        softwareVersion: '0.1.0',
        linkVersions: [1, 1],
        tier: 'edge',
        zone: '',
        labels: {},
        spot: false,
        devices: [device('cpu:0')],
        ...record,
      },
      generation: 1,
      state: 'up',
      cordoned: false,
      ...state,
    });
    this.tellView();
  }

  tellView(stale = false): void {
    this.#revision += 1;
    const news: ViewNews = {
      view: { revision: this.#revision, hosts: new Map(this.#hosts) },
      phase: 'joined',
      self: undefined,
      carried: new Set(),
      stale,
      freshMs: 0,
      peers: new Map(),
      error: undefined,
    };
    this.desk.tell(news);
  }

  async put(key: string, value: unknown): Promise<void> {
    const text = typeof value === 'string' ? value : JSON.stringify(value);
    await this.operator.transact({ conditions: [], operations: [{ type: 'put', key, value: text }] }, never);
  }

  async read(key: string): Promise<unknown> {
    const { entry } = await this.operator.get(key, never);
    return entry === undefined ? undefined : JSON.parse(entry.value);
  }

  /** The files of a model, as a host that has them publishes them. */
  publish(model: string, version = '1'): Promise<void> {
    const sha256 = 'a'.repeat(64);
    const files = [{ path: `${version}/model.onnx`, bytes: 100, sha256 }];
    return this.put(keys.model(model, version), { format: 1, model, version, digest: sha256, memoryBytes: 1e6, files });
  }

  /** As the leader writes it. */
  event(sequence: number, text: string, level: GridEvent['level'] = 'info'): Promise<void> {
    const event: GridEvent = { format: 1, sequence, wallMs: 1_700_000_000_000, level, subject: 'host b', text };
    return this.put(`${keys.events}${sequence}`, event);
  }
}

function device(id: string): HostRecord['devices'][number] {
  return {
    id: deviceId(id),
    provider: 'cpu',
    profile: '',
    emulated: false,
    memoryBytes: 2 ** 30,
    speed: 4,
    pricePerHour: 0,
  };
}
