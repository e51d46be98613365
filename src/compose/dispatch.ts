/**
 * How this host's gateway dispatches: the policy that `--policy` names, the ledger it decides by, and the book of what is known
 * of devices and models. A learned policy comes from a file; one that cannot be trusted is said so in the log, and its rule
 * serves.
 */
import { readFile } from 'node:fs/promises';
import { performance } from 'node:perf_hooks';
import type { DeviceDescriptor } from '#core/device.js';
import { messageOf } from '#core/errors.js';
import type { PeerStatus } from '#core/grid/host-load.js';
import type { View } from '#core/grid/records.js';
import type { DeviceId, HostId } from '#core/ids.js';
import type { AttemptObserver, Picker } from '#core/picker.js';
import { ServiceTable } from '#core/profile/service-table.js';
import type { Replica } from '#core/replica.js';
import { deviceKey, type RoutingTable } from '#core/routing-table.js';
import { deviceState } from '#core/scheduling/device-news.js';
import { DispatchLedger } from '#core/scheduling/dispatch-ledger.js';
import type { DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { LedgerObserver } from '#core/scheduling/ledger-observer.js';
import type { ServiceProfile } from '#core/scheduling/service-profile.js';
import type { Placement } from '#actors/device/protocol.js';
import { DeviceLoads, type LoadedDevice } from '#server/device-loads.js';
import { exportDispatchMetrics } from '#server/dispatch-metrics.js';
import { dispatchByName } from '#policies/placement/dispatch-by-name.js';
import { dispatchFromFile } from '#policies/placement/dispatch-from-file.js';
import { dispatchPicker, type DispatchPicker } from '#policies/placement/dispatch-picker.js';
import { PromotedDispatch } from '#policies/placement/dispatch-promoted.js';
import type { Clock, Timer } from '#ports/clock.js';
import type { DecisionLog } from '#ports/decision-log.js';
import type { Log } from '#ports/log.js';
import type { Metrics } from '#ports/metrics.js';
import type { ProfileStore } from '#ports/profile-store.js';
import type { Random } from '#ports/random.js';
import type { Finished } from '#server/gateway.js';
import type { PublishedRouter } from '#server/router.js';
import type { HostConfig } from '#config.js';
import type { HostBatching } from './batching.js';
import { LiveBook } from './live-book.js';
import { promotionOf, type Promotion } from './promotion.js';

export interface HostDispatch {
  readonly observer: AttemptObserver;
  /** How promotions of the grid are followed; undefined for `least-work`, which decides whatever is promoted. */
  readonly promotion: Promotion | undefined;
  /** The picker of this host's policy; requests that name no time go to `untimed`. */
  pickerOver(untimed: Picker): Picker;
  finished(finished: Finished): void;
  /** Takes over what other hosts say of their devices. */
  learnView(view: View): void;
  /** And how these are now. */
  learnPeers(peers: ReadonlyMap<HostId, PeerStatus>): void;
  /** Looks at this host's devices now and then, until it is told to end. */
  watch(devices: readonly LoadedDevice[]): { stop(): void };
  /** Takes in what was measured of all models. A failure is logged: answers teach, too. */
  learnProfiles(profiles: ProfileStore): Promise<void>;
  /** What is known of the run times of a version on a device of this host. */
  profileOf(device: DeviceId, placement: Placement): ServiceProfile | undefined;
}

export interface HostDispatchOptions {
  readonly config: HostConfig;
  readonly host: HostId;
  readonly descriptors: readonly DeviceDescriptor[];
  /** Where this host is, if it may be taken away at any time. */
  readonly spotZone?: string | undefined;
  readonly router: PublishedRouter;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly metrics: Metrics;
  /** What devices form batches by, which a promoted policy may change. */
  readonly batching: HostBatching;
  /** Told of every decision and of every request that ended. */
  readonly decisionLog?: DecisionLog | undefined;
}

/** The rule that serves when a learned policy's file is refused. */
const defaultRule = 'cheapest-feasible';
/** Milliseconds between two looks at the own devices. */
const lookMs = 2_000;

/** @throws CONFIG_INVALID for a rule that there is none of. */
export async function hostDispatch(options: HostDispatchOptions): Promise<HostDispatch> {
  const { config, router, clock, random, log, decisionLog } = options;
  const book = new LiveBook(options);
  const ledger = new DispatchLedger({ book, wallOffsetMs: clock.wallMs() - clock.nowMs() });
  const own = await policyOf(config.policy, log);
  const policy =
    own === undefined
      ? undefined
      : new PromotedDispatch({ own, random: random.stream('shadow'), clockMs: () => performance.now() });
  let picker: DispatchPicker | undefined;
  const pickers: DispatchPicker[] = [];
  exportDispatchMetrics(options.metrics, pickers, policy);
  const takeIn = (): void => ledger.keepOnly(replicasOf(router.current));
  router.onPublished((table) => {
    book.learnTable(table);
    ledger.keepOnly(replicasOf(table));
  });
  return {
    observer: new LedgerObserver(ledger),
    promotion:
      own === undefined || policy === undefined
        ? undefined
        : promotionOf({
            ...{ own, promoted: policy, clock, metrics: options.metrics, batching: options.batching },
            choiceClockMs: () => performance.now(),
          }),
    pickerOver: (untimed) => {
      if (policy === undefined) return untimed;
      picker = dispatchPicker({
        ...{ policy, ledger, random, untimed },
        ...(decisionLog === undefined ? {} : { onDecision: (decision) => decisionLog.decided(decision) }),
      });
      pickers.push(picker);
      return picker;
    },
    finished: (finished) => {
      const { request, outcome, finishedMs } = finished;
      picker?.finished(request, outcome.ok, finishedMs);
      decisionLog?.finished(finished);
    },
    learnView: (view) => {
      book.learnView(view, clock.nowMs());
      takeIn();
    },
    learnPeers: (peers) => {
      const nowMs = clock.nowMs();
      for (const [other, { load, learnedMs }] of peers) {
        for (const device of load?.devices ?? []) {
          ledger.learn(deviceKey(other, device.device), deviceState(device, learnedMs), nowMs);
        }
      }
    },
    watch: (devices) => {
      const loads = new DeviceLoads(clock, devices);
      let timer: Timer;
      const look = (): void => {
        const nowMs = clock.nowMs();
        for (const load of loads.read()) {
          ledger.learn(deviceKey(options.host, load.device), deviceState(load, nowMs), nowMs);
        }
        timer = clock.schedule(lookMs, look);
      };
      look();
      return { stop: () => timer.cancel() };
    },
    profileOf: (device, placement) => book.ownProfile(device, placement),
    learnProfiles: async (profiles) => {
      try {
        // One look at the database for all models: it is read from disk each time.
        const shards = (await profiles.read()).records.filter((record) => record.type === 'shard');
        const models = new Set(shards.map(({ model }) => model));
        const tables = new Map(
          [...models].map((model) => [model, new ServiceTable(shards, { model, prefer: 'served' })]),
        );
        book.learnProfiles(tables);
        takeIn();
      } catch (error) {
        log.warn('dispatch and batching go by answers alone: the profiles cannot be read', {
          reason: messageOf(error),
        });
      }
    },
  };
}

/** Undefined for `least-work`: the picker for requests without a time then serves all. */
async function policyOf(name: string, log: Log): Promise<DispatchPolicy | undefined> {
  if (name === 'least-work') return undefined;
  if (!name.endsWith('.onnx')) return dispatchByName(name);
  try {
    const policy = dispatchFromFile(await readFile(name), { clockMs: () => performance.now() });
    log.info('requests are dispatched by a learned policy', { policy: policy.name });
    return policy;
  } catch (error) {
    log.error('the learned policy is not used; its rule serves', {
      file: name,
      rule: defaultRule,
      error: messageOf(error),
    });
    return dispatchByName(defaultRule);
  }
}

function* replicasOf({ candidates, reserve }: RoutingTable): Generator<Replica> {
  for (const table of [candidates, reserve]) {
    for (const versions of table?.values() ?? []) {
      for (const all of versions.values()) for (const { replica } of all) yield replica;
    }
  }
}
