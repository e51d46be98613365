/**
 * The sender's dead reckoning: what each device has in its hands by what was sent there and answered, corrected by every
 * answer, and by what others say of the device. Nothing is asked over the network when a request is dispatched; two
 * requests of the same millisecond see each other.
 *
 * What is not known is which items share a batch over there. It is reckoned as devices do it: when an answer comes, the next
 * batch begins, with the model whose head has waited longest and as many items as fit. The sums are exact whatever the
 * batches are; only their grouping is a guess.
 */
import type { Replica } from '../replica.js';
import { deviceKey } from '../routing-table.js';
import { ArrivalMeter } from './arrival-meter.js';
import type { DeviceState } from './device-news.js';
import type { DispatchCandidate, FleetView } from './dispatch-view.js';
import { newFleetView } from './dispatch-view.js';
import { emptyFleetBook, type DeviceFacts, type FleetBook, type ReplicaFacts } from './fleet-book.js';
import { RunTimes } from './run-times.js';
import type { SloClass } from './slo-class.js';

/** A replica at the queue of its first device. Opaque to whoever sends. */
export interface Lane {
  readonly device: Device;
  facts: ReplicaFacts;
  runs: RunTimes;
  /** Items sent and not known to run. */
  waiting: number;
  /** Time to run them, as by `runs`. */
  waitingMs: number;
  /** When the one that waits longest was sent; Infinity when none waits. */
  oldestMs: number;
}

interface Device {
  readonly key: string;
  readonly number: number;
  facts: DeviceFacts;
  priceRank: number;
  readonly lanes: Lane[];
  /** Items sent and not answered. */
  items: number;
  waitingMs: number;
  running: Lane | undefined;
  runningItems: number;
  startedMs: number;
  /** Others' work as last told, and when. */
  othersMs: number;
  othersAtMs: number;
  /** When anything was heard of the device; -Infinity before. */
  heardMs: number;
  freeBytes: number;
  headroom: number;
  /** Recent means, and when they were last fed: both lose their weight with time. */
  errorRate: number;
  ratio: number;
  learnedMs: number;
}

/** What an attempt came to. */
export interface LedgerAnswer {
  readonly ok: boolean;
  /** The run that answered; 0 when there was none or it was not measured. */
  readonly batchItems: number;
  readonly computeMs: number;
}

/** What others say of a device. */
export interface DeviceNews extends DeviceState {
  /** Predicted time until all that is there is done, ms. */
  readonly backlogMs: number;
}

export interface DispatchLedgerOptions {
  readonly book?: FleetBook;
  /** What to add to the monotonic clock for the time of day in UTC, ms. Default 0. */
  readonly wallOffsetMs?: number;
  readonly usdPerKwh?: number;
}

const errorWeight = 0.05;
const ratioWeight = 0.1;
const ratioMin = 0.1;
const ratioMax = 10;
/** Errors and ratios of a device that nobody sends to fade over this time, ms, so that it is tried again. */
const fadeMs = 30_000;
const dayMs = 86_400_000;

export class DispatchLedger {
  readonly #book: FleetBook;
  readonly #wallOffsetMs: number;
  #bookRevision: number;
  readonly #lanes = new Map<string, Lane>();
  readonly #byReplica = new WeakMap<Replica, Lane>();
  readonly #devices = new Map<string, Device>();
  readonly #meter = new ArrivalMeter();
  readonly #fleet: FleetView = newFleetView();
  #itemsUnderWay = 0;
  #interactiveUnderWay = 0;

  constructor(options: DispatchLedgerOptions = {}) {
    this.#book = options.book ?? emptyFleetBook;
    this.#bookRevision = this.#book.revision;
    this.#wallOffsetMs = options.wallOffsetMs ?? 0;
    this.#fleet.usdPerKwh = options.usdPerKwh ?? 0;
  }

  /** The replica's lane; constant time after the first call. Allocates only then. */
  laneOf(replica: Replica): Lane {
    const known = this.#byReplica.get(replica);
    if (known !== undefined) return known;
    return this.#open(replica);
  }

  /**
   * The replicas there are now: facts that the book has changed are taken in, lanes of others are forgotten once nothing is on
   * its way to them. For the slow side, whenever a routing table is published.
   */
  keepOnly(replicas: Iterable<Replica>): void {
    const hasNewFacts = this.#book.revision !== this.#bookRevision;
    this.#bookRevision = this.#book.revision;
    const kept = new Set<Lane>();
    for (const replica of replicas) {
      const lane = this.#byReplica.get(replica);
      if (lane === undefined) continue;
      kept.add(lane);
      if (hasNewFacts) this.#readFacts(lane, replica);
    }
    for (const [id, lane] of this.#lanes) {
      if (kept.has(lane) || lane.waiting > 0 || lane.device.running === lane) continue;
      this.#lanes.delete(id);
      lane.device.lanes.splice(lane.device.lanes.indexOf(lane), 1);
    }
    if (hasNewFacts) this.#rankPrices();
  }

  /** The request was sent: its items wait over there, or run at once when the device has nothing. */
  sent(lane: Lane, items: number, sloClass: SloClass, nowMs: number): void {
    const { device } = lane;
    this.#itemsUnderWay += items;
    if (sloClass === 'interactive') this.#interactiveUnderWay += items;
    if (device.items === 0) {
      device.running = lane;
      device.runningItems = items;
      device.startedMs = nowMs;
    } else this.#setWaiting(lane, lane.waiting + items, lane.waiting === 0 ? nowMs : lane.oldestMs);
    device.items += items;
  }

  /** The attempt is over, whatever came of it. */
  answered(lane: Lane, items: number, sloClass: SloClass, nowMs: number, answer: LedgerAnswer): void {
    const { device, runs } = lane;
    this.#leave(lane, items, sloClass);
    device.heardMs = nowMs;
    const left = this.#fade(device, nowMs);
    device.errorRate = device.errorRate * left * (1 - errorWeight) + (answer.ok ? 0 : errorWeight);
    device.ratio = 1 + (device.ratio - 1) * left;
    device.learnedMs = nowMs;
    if (answer.ok && answer.batchItems > 0 && answer.computeMs > 0) {
      const predictedMs = runs.at(answer.batchItems);
      if (predictedMs > 0) {
        const ratio = Math.min(ratioMax, Math.max(ratioMin, answer.computeMs / predictedMs));
        if (lane.facts.profile !== undefined) device.ratio += ratioWeight * (ratio - device.ratio);
      }
      if (lane.facts.profile === undefined) {
        runs.learn(answer.batchItems, answer.computeMs);
        this.#setWaiting(lane, lane.waiting, lane.oldestMs);
      }
    }
    if (answer.ok) this.#begin(device, nowMs);
    else if (device.runningItems === 0) this.#begin(device, nowMs);
  }

  /** The request was never taken. */
  withdrawn(lane: Lane, items: number, sloClass: SloClass, nowMs: number): void {
    this.#leave(lane, items, sloClass);
    if (lane.device.runningItems === 0) this.#begin(lane.device, nowMs);
  }

  /** Takes in what others say of the lane's device: their work is what is there beyond this sender's own. */
  hear({ device }: Lane, news: DeviceNews, nowMs: number): void {
    if (news.atMs <= device.othersAtMs) return;
    device.othersMs = Math.max(0, news.backlogMs - this.#runningMs(device, news.atMs, 1) - device.waitingMs);
    device.othersAtMs = news.atMs;
    this.#learnState(device, news, nowMs);
  }

  /** Takes in how a device is, whatever work it has; one that nothing was ever sent to is passed over. For the slow side. */
  learn(key: string, state: DeviceState, nowMs: number): void {
    const device = this.#devices.get(key);
    if (device !== undefined) this.#learnState(device, state, nowMs);
  }

  #learnState(device: Device, { atMs, thermalHeadroom, freeMemoryBytes }: DeviceState, nowMs: number): void {
    device.heardMs = Math.max(device.heardMs, Math.min(nowMs, atMs));
    device.headroom = thermalHeadroom ?? device.headroom;
    device.freeBytes = freeMemoryBytes ?? device.freeBytes;
  }

  /** A request arrived that the fleet can serve at so many items a millisecond. */
  arrived(items: number, itemsPerMs: number, nowMs: number): void {
    this.#meter.arrive(itemsPerMs > 0 ? items / itemsPerMs : 0, nowMs);
  }

  /** The fleet as of now; the same object each time. */
  fleet(nowMs: number): FleetView {
    const fleet = this.#fleet;
    fleet.load1s = this.#meter.load1s(nowMs);
    fleet.load30s = this.#meter.load30s(nowMs);
    fleet.burstiness = this.#meter.burstiness(nowMs);
    fleet.interactiveShare = this.#itemsUnderWay > 0 ? this.#interactiveUnderWay / this.#itemsUnderWay : 0;
    const dayPart = (nowMs + this.#wallOffsetMs) % dayMs;
    fleet.hourPhase = (dayPart < 0 ? dayPart + dayMs : dayPart) / dayMs;
    return fleet;
  }

  /**
   * Writes what is predicted for a request of so many items. `itemMs` is taken for an item where nothing was measured; net
   * and mask beyond the book's own are the caller's to add.
   */
  fill(lane: Lane, candidate: DispatchCandidate, items: number, itemMs: number, nowMs: number): void {
    const { device, runs, facts } = lane;
    const left = this.#fade(device, nowMs);
    const ratio = 1 + (device.ratio - 1) * left;
    const { itemsMax } = runs;
    const runningMs = this.#runningMs(device, nowMs, ratio);
    const othersMs = Math.max(0, device.othersMs - (nowMs - device.othersAtMs));
    const { waiting } = lane;
    if (runs.known) {
      const full = Math.floor(waiting / itemsMax);
      const rest = waiting - full * itemsMax;
      const joins = rest > 0 && rest + items <= itemsMax;
      const aheadMs = joins ? full * runs.at(itemsMax) : lane.waitingMs;
      const restMs = joins ? runs.at(rest) : 0;
      const joinedMs = runs.at(joins ? rest + items : items);
      candidate.queuedAheadMs = othersMs + ratio * Math.max(0, device.waitingMs - lane.waitingMs + aheadMs);
      candidate.serviceMs = ratio * joinedMs;
      candidate.marginalMs = ratio * Math.max(0, joinedMs - restMs);
      candidate.soloMs = ratio * runs.at(items);
      candidate.fullMs = ratio * runs.at(itemsMax);
      candidate.runningMs = runningMs;
      candidate.workMs = runningMs + othersMs + ratio * device.waitingMs;
    } else {
      const waitMs = othersMs + device.waitingMs + device.items * itemMs;
      candidate.queuedAheadMs = waitMs;
      candidate.serviceMs = candidate.marginalMs = candidate.soloMs = items * itemMs;
      candidate.fullMs = itemsMax * itemMs;
      candidate.runningMs = 0;
      candidate.workMs = waitMs;
    }
    candidate.device = device.number;
    candidate.netMs = facts.tailMs;
    candidate.transferMs = 0;
    candidate.transferUsd = 0;
    candidate.queueItems = waiting;
    candidate.deviceItems = device.items;
    candidate.itemsMax = itemsMax;
    candidate.spread = runs.spread;
    candidate.usdPerHour = device.facts.usdPerHour + facts.tailUsdPerHour;
    candidate.priceRank = device.priceRank;
    candidate.watts = device.facts.watts + facts.tailWatts;
    candidate.resident = facts.resident;
    candidate.loadMs = facts.loadMs;
    candidate.freeMemoryBytes = device.freeBytes;
    candidate.needBytes = facts.needBytes;
    candidate.prefixHit = 0;
    candidate.spotHazardPerHour = device.facts.spotHazardPerHour;
    candidate.thermalHeadroom = device.headroom;
    candidate.telemetryAgeMs = device.heardMs === -Infinity ? 0 : Math.max(0, nowMs - device.heardMs);
    candidate.errorRate = device.errorRate * left;
    candidate.ratioEwma = ratio;
    candidate.masked = facts.masked;
    if (facts.needBytes > device.freeBytes && device.freeBytes > 0) candidate.masked = 'memory';
  }

  #fade(device: Device, nowMs: number): number {
    if (device.errorRate < 1e-3 && device.ratio === 1) return 1;
    return Math.exp(Math.min(0, device.learnedMs - nowMs) / fadeMs);
  }

  #runningMs({ running, runningItems, startedMs }: Device, nowMs: number, ratio: number): number {
    if (running === undefined) return 0;
    return Math.max(0, startedMs + ratio * running.runs.at(runningItems) - nowMs);
  }

  /** Takes items off the lane: off those that run when the lane runs, else off those that wait. */
  #leave(lane: Lane, items: number, sloClass: SloClass): void {
    const { device } = lane;
    device.items -= items;
    this.#itemsUnderWay -= items;
    if (sloClass === 'interactive') this.#interactiveUnderWay -= items;
    let left = items;
    if (device.running === lane) {
      const ran = Math.min(left, device.runningItems);
      device.runningItems -= ran;
      left -= ran;
    }
    if (left > 0) this.#setWaiting(lane, Math.max(0, lane.waiting - left), lane.oldestMs);
  }

  /** The next batch begins: what was thought to run and did not goes first, by its age. */
  #begin(device: Device, nowMs: number): void {
    const before = device.running;
    if (before !== undefined && device.runningItems > 0) {
      this.#setWaiting(before, before.waiting + device.runningItems, Math.min(before.oldestMs, device.startedMs));
    }
    let next: Lane | undefined;
    for (let index = 0; index < device.lanes.length; index += 1) {
      const lane = device.lanes[index] as Lane;
      if (lane.waiting > 0 && (next === undefined || lane.oldestMs < next.oldestMs)) next = lane;
    }
    device.running = next;
    device.runningItems = 0;
    if (next === undefined) return;
    device.runningItems = Math.min(next.waiting, next.runs.itemsMax);
    device.startedMs = nowMs;
    this.#setWaiting(next, next.waiting - device.runningItems, nowMs);
  }

  #setWaiting(lane: Lane, items: number, oldestMs: number): void {
    const ms = lane.runs.drain(items);
    lane.device.waitingMs = Math.max(0, lane.device.waitingMs + ms - lane.waitingMs);
    lane.waiting = items;
    lane.waitingMs = ms;
    lane.oldestMs = items === 0 ? Infinity : oldestMs;
  }

  #open(replica: Replica): Lane {
    const [first] = replica.stages;
    const key = first === undefined ? '' : deviceKey(first.host, first.device);
    const device = this.#deviceOf(key);
    // A replica's object changes with its artefact while requests are on their way: the queue over there is the same.
    const id = `${replica.id} ${first?.digest ?? ''}`;
    let lane = this.#lanes.get(id);
    if (lane === undefined) {
      const facts = this.#book.replica(replica);
      const runs = new RunTimes(facts.profile, facts.itemsMax);
      lane = { device, facts, runs, waiting: 0, waitingMs: 0, oldestMs: Infinity };
      this.#lanes.set(id, lane);
      device.lanes.push(lane);
    }
    this.#byReplica.set(replica, lane);
    return lane;
  }

  #readFacts(lane: Lane, replica: Replica): void {
    const facts = this.#book.replica(replica);
    const { device } = lane;
    device.facts = this.#book.device(device.key);
    const isSame = facts.profile === lane.facts.profile && facts.itemsMax === lane.facts.itemsMax;
    lane.facts = facts;
    if (isSame) return;
    const items = lane.waiting;
    const { oldestMs } = lane;
    lane.runs = new RunTimes(facts.profile, facts.itemsMax);
    this.#setWaiting(lane, items, oldestMs);
  }

  #deviceOf(key: string): Device {
    let device = this.#devices.get(key);
    if (device !== undefined) return device;
    const facts = this.#book.device(key);
    device = {
      key,
      number: this.#devices.size,
      facts,
      priceRank: 0,
      lanes: [],
      items: 0,
      waitingMs: 0,
      running: undefined,
      runningItems: 0,
      startedMs: 0,
      othersMs: 0,
      othersAtMs: -Infinity,
      heardMs: -Infinity,
      freeBytes: facts.memoryBytes,
      headroom: 1,
      errorRate: 0,
      ratio: 1,
      learnedMs: 0,
    };
    this.#devices.set(key, device);
    this.#rankPrices();
    return device;
  }

  #rankPrices(): void {
    const prices = [...new Set([...this.#devices.values()].map(({ facts }) => facts.usdPerHour))].sort(
      (left, right) => left - right,
    );
    const last = Math.max(1, prices.length - 1);
    for (const device of this.#devices.values()) device.priceRank = prices.indexOf(device.facts.usdPerHour) / last;
  }
}
