/**
 * How long values take from one device of a plan to another: out of an executor, between two hosts, into the next executor.
 * Each part by the records of the profile database where there are some, else by what hosts see of each other, else guessed.
 */
import type { LinkRecord, ProfileRecord } from '#core/profile/profile-record.js';
import { LinkTable } from '#core/profile/service-table.js';
import type { LinkTimes } from '#core/split/plan-tables.js';
import type { PlanDevice } from './plan-devices.js';

export interface PlanLinksOptions {
  readonly records: readonly ProfileRecord[];
  /** This machine, as records name it. */
  readonly host: string;
  /** Milliseconds from the host that was asked to a host and back; 0 where not known. Absent: no grid. */
  readonly roundTripMs?: (host: string) => number;
}

interface Way {
  readonly fixedMs: number;
  readonly msPerByte: number;
  /** Of the logarithm. */
  readonly deviation: number;
  readonly isMeasured: boolean;
}

const guessed = { isMeasured: false, deviation: Math.log(2) };
/** Half of the way between two processes of one machine: a frame, and copies. */
const executorWay: Way = { fixedMs: 0.075, msPerByte: 0.5e-6, ...guessed };
/** Between hosts of which nothing is known: a rack, and a gigabit a second. */
const hostWayMs = 0.25;
const gigabitMsPerByte = 8e-6;
const measuredDeviationMin = 0.1;

export class PlanLinks {
  readonly #options: PlanLinksOptions;
  #records: readonly LinkRecord[];
  #table: LinkTable;

  constructor(options: PlanLinksOptions) {
    this.#options = options;
    this.#records = options.records.filter((record) => record.type === 'link');
    this.#table = new LinkTable(this.#records);
  }

  add(records: readonly ProfileRecord[]): void {
    const links = records.filter((record) => record.type === 'link');
    if (links.length === 0) return;
    this.#records = [...this.#records, ...links];
    this.#table = new LinkTable(this.#records);
  }

  /** Whether the way to a device's executor was measured. */
  knows(device: PlanDevice): boolean {
    return this.#measured(hostEnd(this.#hostOf(device)), this.#endOf(device)) !== undefined;
  }

  between(from: PlanDevice, to: PlanDevice): LinkTimes {
    const [begin, end] = [this.#hostOf(from), this.#hostOf(to)];
    const ways = [this.#executor(from, 'out'), this.#executor(to, 'in')];
    if (begin !== end) ways.push(this.#hosts(begin, end));
    return {
      fixedMs: ways.reduce((sum, { fixedMs }) => sum + fixedMs, 0),
      msPerByte: ways.reduce((sum, { msPerByte }) => sum + msPerByte, 0),
      source: ways.every(({ isMeasured }) => isMeasured) ? 'measured' : 'estimated',
      deviation: Math.max(...ways.map(({ deviation }) => deviation)),
    };
  }

  #executor(device: PlanDevice, direction: 'in' | 'out'): Way {
    const own = this.#measured(hostEnd(this.#hostOf(device)), this.#endOf(device), direction);
    if (own !== undefined) return own;
    // The same engine elsewhere is the best guess.
    const { host } = this.#options;
    const like = this.#measured(hostEnd(host), { host, device: `${device.provider}:0` }, direction);
    return like === undefined ? executorWay : { ...like, ...guessed };
  }

  #hosts(from: string, to: string): Way {
    const there = this.#measured(hostEnd(from), hostEnd(to)) ?? this.#measured(hostEnd(to), hostEnd(from));
    if (there !== undefined) return there;
    const roundTripMs = this.#options.roundTripMs ?? (() => 0);
    // Both ways go by the host that was asked: at most so long.
    const seenMs = (roundTripMs(from) + roundTripMs(to)) / 2;
    return { fixedMs: seenMs > 0 ? seenMs : hostWayMs, msPerByte: gigabitMsPerByte, ...guessed };
  }

  #measured(a: LinkRecord['from'], b: LinkRecord['from'], direction: 'in' | 'out' = 'in'): Way | undefined {
    const [from, to] = direction === 'in' ? [a, b] : [b, a];
    const figures = this.#table.figures(from, to);
    if (figures !== undefined) {
      const { fixedMs, msPerByte, relativeError } = figures;
      return { fixedMs, msPerByte, isMeasured: true, deviation: Math.max(measuredDeviationMin, relativeError) };
    }
    const [row] = this.#table.rows(from, to);
    return row === undefined ? undefined : { fixedMs: row.p50Ms, msPerByte: gigabitMsPerByte, ...guessed };
  }

  #hostOf({ place }: PlanDevice): string {
    return place?.host ?? this.#options.host;
  }

  #endOf(device: PlanDevice): LinkRecord['from'] {
    const { place, descriptor, id } = device;
    return place ?? { host: this.#options.host, device: descriptor?.id ?? id };
  }
}

function hostEnd(host: string): LinkRecord['from'] {
  return { host, device: '' };
}
