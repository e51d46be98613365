/**
 * Times of one model by shard, device and batch size, as they were measured: tables, not fits. For the planner, the
 * simulator and policies. Where nothing was measured there is no answer; who wants an estimate makes one, and says so.
 */
import type { ContentionRecord, LinkEnd, NodesRecord, ProfileRecord, ShardRecord } from './profile-record.js';
import { addTimes, timeFigures, type TimeFigures, type TimeStats } from './time-stats.js';

/** Which devices are meant; what is absent may be anything. */
export interface DeviceSelector {
  readonly host?: string;
  readonly device?: string;
  readonly silicon?: string;
  readonly provider?: string;
  readonly threads?: number;
}

export interface Range {
  readonly from: number;
  readonly to: number;
}

/** One cell: a shard on the selected devices at one batch size. */
export interface ServiceCell extends Range, TimeFigures {
  readonly batch: number;
  readonly source: ShardRecord['source'];
  readonly weightBytes: number;
  readonly peakActivationBytes: number;
  readonly loadedBytes: number;
  readonly emulated: boolean;
}

export interface ServiceTableOptions {
  readonly model: string;
  /** Which times count where a shard was both profiled and served. Default `profiled`. */
  readonly prefer?: ShardRecord['source'];
}

/** Times measured at least so often in production before they are preferred to profiled ones. */
const servedRunsMin = 50;

export class ServiceTable {
  readonly model: string;
  readonly #shards: readonly ShardRecord[];
  readonly #nodes: readonly NodesRecord[];
  readonly #contention: readonly ContentionRecord[];
  readonly #prefer: ShardRecord['source'];

  constructor(records: readonly ProfileRecord[], { model, prefer = 'profiled' }: ServiceTableOptions) {
    this.model = model;
    this.#prefer = prefer;
    const shards = records.filter((record) => record.type === 'shard').filter((record) => record.model === model);
    // Hosts record the whole model without its number of nodes.
    const nodes = shards.reduce((most, record) => Math.max(most, record.nodes), 0);
    this.#shards = shards.map((record) => (record.nodes === 0 ? { ...record, nodes, to: nodes } : record));
    this.#contention = records
      .filter((record) => record.type === 'contention')
      .filter((record) => record.model === model);
    this.#nodes = records.filter((record) => record.type === 'nodes').filter((record) => record.model === model);
  }

  /** Devices with measurements, each once. */
  devices(): readonly Required<DeviceSelector>[] {
    const found = new Map<string, Required<DeviceSelector>>();
    for (const { host, device, silicon, provider, threads } of this.#shards) {
      found.set(JSON.stringify([host, device, silicon, provider, threads]), {
        ...{ host, device, silicon, provider, threads },
      });
    }
    return [...found.values()];
  }

  /** Nodes of the model's sorted graph; undefined where nothing was measured. */
  get nodes(): number | undefined {
    return this.#shards[0]?.nodes ?? this.#nodes[0]?.nodes;
  }

  /** Batch sizes at which a shard was measured, ascending. */
  batches(selector: DeviceSelector, range: Range): readonly number[] {
    const found = this.#shards.filter((record) => isOf(record, selector) && isRange(record, range));
    return [...new Set(found.map(({ batch }) => batch))].sort((a, b) => a - b);
  }

  /** Every measured shard on the selected devices, by place and batch size. */
  cells(selector: DeviceSelector): readonly ServiceCell[] {
    const groups = new Map<string, ShardRecord[]>();
    for (const record of this.#shards) {
      if (!isOf(record, selector)) continue;
      const key = `${record.from} ${record.to} ${record.batch}`;
      const group = groups.get(key);
      if (group === undefined) groups.set(key, [record]);
      else group.push(record);
    }
    const cells = [...groups.values()].map((group) => this.#cell(group));
    return cells.sort((a, b) => a.from - b.from || a.to - b.to || a.batch - b.batch);
  }

  cell(selector: DeviceSelector, range: Range, batch: number): ServiceCell | undefined {
    const group = this.#shards.filter(
      (record) => record.batch === batch && isRange(record, range) && isOf(record, selector),
    );
    return group.length === 0 ? undefined : this.#cell(group);
  }

  /** Mean milliseconds of one run, measured at exactly this batch size; undefined otherwise. */
  ms(selector: DeviceSelector, range: Range, batch: number): number | undefined {
    return this.cell(selector, range, batch)?.meanMs;
  }

  /** Mean milliseconds of the whole model by batch size, ascending: what simulator and policies ask. */
  wholeMs(selector: DeviceSelector): ReadonlyMap<number, number> {
    const whole = { from: 0, to: this.nodes ?? 0 };
    const table = new Map<number, number>();
    for (const batch of this.batches(selector, whole)) table.set(batch, this.ms(selector, whole, batch) ?? 0);
    return table;
  }

  /**
   * Measured shards as the planner's tables take them. `ms` is the median: a pause of the machine is no property of the model.
   */
  measured(selector: DeviceSelector): readonly {
    readonly from: number;
    readonly to: number;
    readonly batch: number;
    readonly ms: number;
    readonly relativeError: number;
  }[] {
    return this.cells(selector).map(({ from, to, batch, p50Ms, relativeError }) => ({
      ...{ from, to, batch, relativeError },
      ms: p50Ms,
    }));
  }

  /** Shards that were measured while other devices ran. */
  contention(selector: DeviceSelector): readonly ContentionRecord[] {
    return this.#contention.filter((record) => isOf(record, selector));
  }

  /** Milliseconds by node of one run, the newest measurement; undefined without one. */
  nodeMs(selector: DeviceSelector, batch: number): NodesRecord | undefined {
    const found = this.#nodes.filter((record) => record.batch === batch && isOf(record, selector));
    return found.reduce<NodesRecord | undefined>((a, b) => (a === undefined || b.atMs > a.atMs ? b : a), undefined);
  }

  #cell(group: readonly ShardRecord[]): ServiceCell {
    const served = group.filter(({ source }) => source === 'served');
    const profiled = group.filter(({ source }) => source === 'profiled');
    const servedRuns = served.reduce((count, { times }) => count + times.count, 0);
    const isServed =
      profiled.length === 0 || (this.#prefer === 'served' && served.length > 0 && servedRuns >= servedRunsMin);
    const chosen = isServed ? served : profiled;
    const first = chosen[0] as ShardRecord;
    const { from, to, batch } = first;
    const most = (of: (record: ShardRecord) => number): number =>
      group.reduce((largest, record) => Math.max(largest, of(record)), 0);
    return {
      ...{ from, to, batch },
      ...timeFigures(chosen.map(({ times }) => times).reduce(addTimes)),
      source: isServed ? 'served' : 'profiled',
      weightBytes: most((record) => record.weightBytes),
      peakActivationBytes: most((record) => record.peakActivationBytes),
      loadedBytes: most((record) => record.loadedBytes),
      emulated: chosen.some(({ emulated }) => emulated),
    };
  }
}

/** How long bytes take between two ends. */
export class LinkTable {
  readonly #rows = new Map<string, Map<number, TimeStats>>();

  constructor(records: readonly ProfileRecord[]) {
    for (const record of records) {
      if (record.type !== 'link') continue;
      const key = linkKey(record.from, record.to);
      const row = this.#rows.get(key) ?? new Map<number, TimeStats>();
      this.#rows.set(key, row);
      const known = row.get(record.bytes);
      row.set(record.bytes, known === undefined ? record.times : addTimes(known, record.times));
    }
  }

  /** Measured sizes with their figures, ascending. */
  rows(from: LinkEnd, to: LinkEnd): readonly (TimeFigures & { readonly bytes: number })[] {
    const row = this.#rows.get(linkKey(from, to));
    if (row === undefined) return [];
    return [...row].sort(([a], [b]) => a - b).map(([bytes, times]) => ({ bytes, ...timeFigures(times) }));
  }

  /**
   * What a link is, in two figures of its table: the time of the smallest message, and what a byte adds up to the largest.
   * Undefined with less than two sizes.
   */
  figures(from: LinkEnd, to: LinkEnd): LinkFigures | undefined {
    const rows = this.rows(from, to);
    const [smallest] = rows;
    const largest = rows.at(-1);
    if (smallest === undefined || largest === undefined || largest.bytes === smallest.bytes) return undefined;
    const fixedMs = smallest.p50Ms;
    const msPerByte = Math.max(0, largest.p50Ms - fixedMs) / (largest.bytes - smallest.bytes);
    return {
      fixedMs,
      msPerByte,
      roundTripMs: 2 * fixedMs,
      bytesPerSecond: msPerByte === 0 ? Infinity : 1000 / msPerByte,
      relativeError: Math.max(smallest.relativeError, largest.relativeError),
      count: rows.reduce((sum, { count }) => sum + count, 0),
    };
  }

  /** One way, ms: measured sizes as they are, between them on the line; beyond them by the two figures. */
  ms(from: LinkEnd, to: LinkEnd, bytes: number): number | undefined {
    const rows = this.rows(from, to);
    const above = rows.find((row) => row.bytes >= bytes);
    const below = rows.findLast((row) => row.bytes <= bytes);
    if (above !== undefined && below !== undefined) {
      if (above.bytes === below.bytes) return above.p50Ms;
      return below.p50Ms + ((above.p50Ms - below.p50Ms) * (bytes - below.bytes)) / (above.bytes - below.bytes);
    }
    if (below === undefined) return above?.p50Ms;
    const figures = this.figures(from, to);
    return figures === undefined ? undefined : below.p50Ms + (bytes - below.bytes) * figures.msPerByte;
  }

  /** The ends that were measured. */
  links(): readonly { readonly from: LinkEnd; readonly to: LinkEnd }[] {
    return [...this.#rows.keys()].map((key) => {
      const [fromHost, fromDevice, toHost, toDevice] = JSON.parse(key) as readonly [string, string, string, string];
      return { from: { host: fromHost, device: fromDevice }, to: { host: toHost, device: toDevice } };
    });
  }
}

export interface LinkFigures {
  /** Of the smallest message, one way. */
  readonly fixedMs: number;
  readonly msPerByte: number;
  readonly roundTripMs: number;
  readonly bytesPerSecond: number;
  readonly relativeError: number;
  readonly count: number;
}

function linkKey(from: LinkEnd, to: LinkEnd): string {
  return JSON.stringify([from.host, from.device, to.host, to.device]);
}

function isRange(record: ShardRecord, { from, to }: Range): boolean {
  return record.from === from && record.to === to;
}

function isOf(record: ShardRecord | ContentionRecord | NodesRecord, selector: DeviceSelector): boolean {
  return (
    (selector.host === undefined || record.host === selector.host) &&
    (selector.device === undefined || record.device === selector.device) &&
    (selector.silicon === undefined || record.silicon === selector.silicon) &&
    (selector.provider === undefined || record.provider === selector.provider) &&
    (selector.threads === undefined || record.threads === selector.threads)
  );
}
