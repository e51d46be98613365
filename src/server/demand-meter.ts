/** How much is asked of each model on this host's devices, from their statistics: differences of two looks. */
import type { DeviceMessage, VersionStatistics } from '#actors/device/protocol.js';
import type { DemandRow } from '#core/grid/demand.js';
import type { Clock } from '#ports/clock.js';
import type { ActorRef } from '#runtime/actor.js';

/** Longest wait for a device's answer, ms. */
const askMsMax = 5_000;

export interface MeteredDevice {
  readonly descriptor: { readonly id: string };
  readonly ref: Pick<ActorRef<DeviceMessage>, 'ask'>;
}

interface Counts {
  /** Answered, and with those that were refused. */
  readonly items: number;
  readonly asked: number;
  readonly busyMs: number;
}

const none: Counts = { items: 0, asked: 0, busyMs: 0 };

export class DemandMeter {
  readonly #clock: Clock;
  readonly #devices: readonly MeteredDevice[];
  readonly #before = new Map<string, Counts>();
  /** Last known ms an item. */
  readonly #msPerItem = new Map<string, number>();
  #lookedMs: number;

  constructor(clock: Clock, devices: readonly MeteredDevice[]) {
    this.#clock = clock;
    this.#devices = devices;
    this.#lookedMs = clock.nowMs();
  }

  /** Since the last look. @throws DEADLINE_EXCEEDED when a device does not answer. */
  async look(): Promise<readonly DemandRow[]> {
    const deadlineMs = this.#clock.nowMs() + askMsMax;
    const answers = await Promise.all(
      this.#devices.map(async ({ descriptor, ref }) => {
        const versions = await ref.ask<readonly VersionStatistics[]>((replyTo) => ({ type: 'statistics', replyTo }), {
          deadlineMs,
        });
        return { device: descriptor.id, versions };
      }),
    );
    const nowMs = this.#clock.nowMs();
    const seconds = Math.max(1e-3, (nowMs - this.#lookedMs) / 1000);
    this.#lookedMs = nowMs;
    return answers.flatMap(({ device, versions }) => versions.map((each) => this.#row(device, each, seconds)));
  }

  #row(device: string, { model, version, statistics }: VersionStatistics, seconds: number): DemandRow {
    const key = `${device} ${model}/${version}`;
    const before = this.#before.get(key) ?? none;
    const busyNs = statistics.batches.reduce(
      (sum, { computeInput, computeInfer, computeOutput }) =>
        sum + computeInput.ns + computeInfer.ns + computeOutput.ns,
      0,
    );
    const items = statistics.inferenceCount;
    const now = { items, asked: items + statistics.fail.count, busyMs: busyNs / 1e6 };
    this.#before.set(key, now);
    if (items > before.items) this.#msPerItem.set(key, (now.busyMs - before.busyMs) / (items - before.items));
    return {
      ...{ model, version, device },
      itemsPerSecond: Math.max(0, now.asked - before.asked) / seconds,
      msPerItem: this.#msPerItem.get(key) ?? 0,
    };
  }
}
