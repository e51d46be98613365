/**
 * Writes what a host serves into the profile database, so that tables sharpen in production, and brings it to the other
 * hosts of the grid. Once in an interval it asks each device for its statistics: the way of a request is not touched.
 */
import { join } from 'node:path';
import { ProfileFolder } from '#adapters/profile-files/profile-folder.js';
import type { VersionStatistics } from '#actors/device/protocol.js';
import type { Catalog } from '#core/catalog.js';
import type { DeviceDescriptor } from '#core/device.js';
import { messageOf } from '#core/errors.js';
import type { HostId } from '#core/ids.js';
import type { BatchStatistics } from '#core/model-statistics.js';
import { servedRecords } from '#core/profile/served-records.js';
import { profileSchema, type LinkRecord, type ShardRecord } from '#core/profile/profile-record.js';
import { timesOfMean } from '#core/profile/time-stats.js';
import { MiB } from '#core/units.js';
import type { Clock, Timer } from '#ports/clock.js';
import type { PeerLink } from '#ports/links.js';
import type { Log } from '#ports/log.js';
import type { ProfileStore } from '#ports/profile-store.js';
import type { HostConfig } from '#config.js';
import type { StartedDevice } from '../statistics.js';
import { ProfileExchange, type ProfileExchangeOptions } from './profile-exchange.js';

/** Milliseconds between two looks. */
export const servedIntervalMs = 60_000;
/** Looks from one exchange with other hosts to the next. */
const exchangeEvery = 5;
const askMsMax = 5_000;
/** Of the folder: hosts read it now and then. */
const folderBytesMax = 16 * MiB;
/** Of a link's probe. */
const probeBytes = 64;

export interface ServedRecorderOptions {
  readonly host: HostId;
  readonly devices: readonly (Omit<StartedDevice, 'ref'> & {
    readonly statistics: () => Promise<readonly VersionStatistics[]>;
  })[];
  readonly catalog: () => Catalog;
  readonly profiles: ProfileStore;
  readonly clock: Clock;
  readonly log: Log;
  /** Called with the database after each recording. */
  readonly onRecorded?: (profiles: ProfileStore) => Promise<void>;
  /** Absent for a host that serves alone. */
  readonly exchange?: Pick<ProfileExchangeOptions, 'store' | 'keys'>;
  /** What the links to other hosts measure all the time. */
  readonly peers?: () => readonly Pick<PeerLink, 'host' | 'roundTripMs' | 'bytesPerSecond'>[];
}

export class ServedRecorder {
  readonly #options: ServedRecorderOptions;
  readonly #exchange: ProfileExchange | undefined;
  /** By device and version: what was recorded already. */
  readonly #counted = new Map<string, readonly BatchStatistics[]>();
  #timer: Timer | undefined;
  #turn: Promise<void> = Promise.resolve();
  #isStopped = false;
  #looks = 0;

  constructor(options: ServedRecorderOptions) {
    const { exchange, host, profiles, clock } = options;
    this.#options = options;
    this.#exchange = exchange === undefined ? undefined : new ProfileExchange({ ...exchange, host, profiles, clock });
  }

  start(): void {
    if (this.#isStopped) return;
    this.#timer = this.#options.clock.schedule(servedIntervalMs, () => {
      this.#turn = this.record()
        .then(() => this.#options.onRecorded?.(this.#options.profiles))
        .then(() => this.start());
    });
  }

  /** Records once more and closes the database. */
  async stop(): Promise<void> {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#timer?.cancel();
    await this.#turn;
    // The store of the grid may be gone before this host; peers have the last interval's.
    await this.record({ exchanges: false });
    await this.#options.profiles.close();
  }

  /** Records what was served since the last time. A failure is logged: serving goes on without. */
  async record({ exchanges = true } = {}): Promise<void> {
    const { devices, profiles, catalog, log, clock } = this.#options;
    try {
      const records: ShardRecord[] = [];
      for (const { descriptor, statistics } of devices) {
        for (const row of await statistics()) records.push(...this.#recordsOf(descriptor, row, clock.wallMs()));
      }
      await profiles.append([...records, ...this.#linkRecords(clock.wallMs())]);
      this.#looks += 1;
      if (this.#exchange === undefined || !exchanges || this.#looks % exchangeEvery !== 1) return;
      const served = [...catalog().models.values()].flatMap((entry) => [...entry.served.values()]);
      for (const problem of await this.#exchange.exchange(served.map(({ digest }) => digest))) {
        log.warn('a profile was left alone', { problem });
      }
    } catch (error) {
      log.warn('what was served could not be recorded', { reason: messageOf(error) });
    }
  }

  /** The smallest message takes half of a round trip; a large one longer, by the rate of recent large ones. */
  #linkRecords(atMs: number): readonly LinkRecord[] {
    const { host, peers } = this.#options;
    return (peers?.() ?? []).flatMap(({ host: peer, roundTripMs, bytesPerSecond }): readonly LinkRecord[] => {
      if (roundTripMs === undefined || !(roundTripMs > 0)) return [];
      const [from, to] = [
        { host, device: '' },
        { host: peer, device: '' },
      ];
      const record = (bytes: number, ms: number): LinkRecord => ({
        ...{ type: 'link', schema: profileSchema, from, to, bytes, times: timesOfMean(ms, 1), atMs },
      });
      const small = record(probeBytes, roundTripMs / 2);
      if (bytesPerSecond === undefined || !(bytesPerSecond > 0)) return [small];
      return [small, record(MiB, roundTripMs / 2 + (1000 * MiB) / bytesPerSecond)];
    });
  }

  #recordsOf(descriptor: DeviceDescriptor, row: VersionStatistics, atMs: number): readonly ShardRecord[] {
    const { host, catalog } = this.#options;
    const model = catalog().models.get(row.model)?.served.get(row.version)?.digest;
    if (model === undefined) return [];
    const key = `${descriptor.id} ${model}`;
    const driver = descriptor.facts['driver'];
    const device = {
      ...{ host, device: descriptor.id, silicon: descriptor.profile ?? descriptor.name },
      ...{ provider: descriptor.provider, threads: descriptor.threads, emulated: descriptor.emulated },
      engine: driver === undefined ? descriptor.provider : `${descriptor.provider}, driver ${String(driver)}`,
    };
    const { batches } = row.statistics;
    const before = this.#counted.get(key) ?? [];
    const { records, counted } = servedRecords({ model, batches, before, memoryBytes: row.memoryBytes }, device, atMs);
    this.#counted.set(key, counted);
    return records;
  }
}

/** Starts recording where the host has a folder for it. */
export async function startServedRecorder(
  config: HostConfig,
  options: Omit<ServedRecorderOptions, 'profiles' | 'devices'> & { readonly devices: readonly StartedDevice[] },
): Promise<{ readonly profiles?: ProfileStore; stop(): Promise<void> }> {
  const dataPath = config.grid?.dataPath ?? '';
  const path = config.profileStorePath || (dataPath === '' ? '' : join(dataPath, 'profiles'));
  if (path === '' || options.devices.length === 0) return { stop: () => Promise.resolve() };
  const { clock } = options;
  const profiles = await ProfileFolder.open({ path, clock, bytesMax: folderBytesMax });
  const devices = options.devices.map(({ descriptor, ref }) => ({
    descriptor,
    statistics: () =>
      ref.ask<readonly VersionStatistics[]>((replyTo) => ({ type: 'statistics', replyTo }), {
        deadlineMs: clock.nowMs() + askMsMax,
      }),
  }));
  const recorder = new ServedRecorder({ ...options, devices, profiles });
  recorder.start();
  return { profiles, stop: () => recorder.stop() };
}
