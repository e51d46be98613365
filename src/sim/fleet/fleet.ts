/**
 * A fleet to be simulated, as plain data: devices that take time, money and energy, models that run on them, classes of
 * requests with their targets, and what may go wrong. It says nothing of arrivals (arrivals.ts) or of policies.
 *
 * Times are milliseconds, money US dollars, power watts. Service times are tables by items of a batch, never straight lines:
 * processors gain nothing from batches, accelerators have cliffs.
 */
import type { ServiceProfile } from '#core/scheduling/service-profile.js';
import { sloClasses, type OnMiss, type SloClass } from '#core/scheduling/slo-class.js';

export const fleetClasses: readonly SloClass[] = sloClasses;

export interface Fleet {
  readonly name: string;
  readonly devices: readonly FleetDevice[];
  readonly models: readonly FleetModel[];
  /** Share of requests by class, in the order of `fleetClasses`; they add up to 1. */
  readonly classShares: readonly number[];
  /** What becomes of a request of a class whose target can no longer be met, in the same order. */
  readonly classOnMiss: readonly OnMiss[];
  /** Spread of service times: sigma of a lognormal factor with mean 1, 0 to 1. Devices may have their own. */
  readonly noise: number;
  /** How much of it lasts: a device that is slow now will be slow in a moment, too. */
  readonly lastingNoise: LastingNoise;
}

export interface LastingNoise {
  /** Share of the logarithm's variance that two runs of one moment have in common, 0 to 1; 0: each run by itself. */
  readonly share: number;
  /** After so many ms they have 1/e of it in common. */
  readonly ms: number;
}

export type FleetTier = 'edge' | 'regional' | 'core';

export interface FleetDevice {
  readonly id: string;
  /** Devices of one type have the same tables, price and tier: bounds treat them as one. */
  readonly type: string;
  readonly tier: FleetTier;
  readonly usdPerHour: number;
  readonly watts: number;
  readonly memoryBytes: number;
  /** There and back, ms, 0 on the gateway's own host. */
  readonly netMs: number;
  /** Of the link, MB/s (10^6 bytes); Infinity where it does not matter. */
  readonly linkMBs: number;
  /**
   * Batches that may be with the executor at once; it computes one at a time. More than one hides the hand-over on real
   * devices; here it takes no time, and 1 forms batches latest.
   */
  readonly permits: number;
  /** Losses of a spot device per hour; 0 for a device that is not taken away. */
  readonly spotHazardPerHour: number;
  /** Crashes per hour, and how long it is gone after one (ms). Spot capacity comes back after `repairMs`, too. */
  readonly failuresPerHour: number;
  readonly repairMs: number;
  /** Slow change of its speed: the factor of service times swings by this share around 1, with this period (ms). */
  readonly drift: number;
  readonly driftPeriodMs: number;
  /** Spread of its service times: sigma as the fleet's. */
  readonly noise: number;
  /** Milliseconds that a run holds the device beside computing: until its answer is back and the next one begins. */
  readonly handOverMs: number;
  /** Factors on its service times while those devices compute, too, by id; nobody where they share nothing. */
  readonly slowedBy: ReadonlyMap<string, number>;
  /** Mean milliseconds of a run by model, in the order of the fleet's models; undefined where the model does not live. */
  readonly service: readonly (ServiceProfile | undefined)[];
}

export interface FleetModel {
  readonly name: string;
  /** Share of requests; those of all models add up to 1. */
  readonly share: number;
  /** Items of the largest batch. */
  readonly itemsMax: number;
  readonly memoryBytes: number;
  readonly loadMs: number;
  /** Bytes of a request's input, per item: what a link carries. */
  readonly bytesPerItem: number;
  /** Target from arrival to answer by class (ms), in the order of `fleetClasses`. */
  readonly sloMs: readonly number[];
  /** How tokens of a trace become items; undefined for models whose requests have one item. */
  readonly tokens: TokenRule | undefined;
}

/**
 * From a row of tokens to items: `ceil((context + generatedWeight × generated) / tokensPerItem)`, at least 1, at most the
 * model's `itemsMax`. The service table by items is then the per-token table, one row every `tokensPerItem` tokens: a
 * request costs the time of the tokens it reads and writes. `generatedWeight` is how many context tokens take as long as one
 * generated token. Stands in for token-by-token serving, which this product does not have yet.
 */
export interface TokenRule {
  readonly tokensPerItem: number;
  readonly generatedWeight: number;
}

/** Milliseconds a request of so many items needs on an idle device and its link: the latest it can be sent is this before. */
export function linkMs(device: FleetDevice, model: FleetModel, items: number): number {
  return device.netMs + (items * model.bytesPerItem) / (device.linkMBs * 1000);
}
