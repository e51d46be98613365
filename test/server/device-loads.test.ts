import { describe, expect, it } from 'vitest';
import type { DeviceMessage, DeviceStatus } from '#actors/device/protocol.js';
import { deviceId } from '#core/ids.js';
import type { ActorRef } from '#runtime/actor.js';
import { DeviceLoads, type LoadedDevice } from '#server/device-loads.js';
import { VirtualClock } from '#sim/virtual-clock.js';

interface PretendedDevice extends LoadedDevice {
  asked: number;
  answer: (status: DeviceStatus) => void;
  fail: (reason: Error) => void;
}

/** A device that is asked for its status and answers when the test says so. */
function pretended(id: string): PretendedDevice {
  const device: PretendedDevice = {
    descriptor: { id: deviceId(id) },
    asked: 0,
    answer: () => {},
    fail: () => {},
    ref: {
      ask: () => {
        device.asked += 1;
        return new Promise((resolve, reject) => {
          device.answer = resolve;
          device.fail = reject;
        });
      },
    } as unknown as ActorRef<DeviceMessage>,
  };
  return device;
}

const queue = (queuedRequests: number, oldestArrivedMs: number): object => ({ queuedRequests, oldestArrivedMs });
function status(id: string, change: object = {}): DeviceStatus {
  return {
    device: { id: deviceId(id), permits: 2, memoryBytes: 1000 },
    memoryUsedBytes: 300,
    health: 'ready',
    reason: '',
    queues: [],
    permitsFree: 2,
    ...change,
  } as unknown as DeviceStatus;
}

describe('what devices are doing', () => {
  it('is their last answer: what waits, for how long, and what runs', async () => {
    const clock = new VirtualClock();
    await clock.settleUntil(1000);
    const device = pretended('cpu:0');
    const loads = new DeviceLoads(clock, [device]);
    expect(loads.read()).toEqual([]);
    device.answer(status('cpu:0', { queues: [queue(3, 400), queue(1, 900)], permitsFree: 1, temperatureCelsius: 71 }));
    await clock.settleUntil();
    expect(loads.read()).toEqual([
      {
        ...{ device: 'cpu:0', queued: 4, inFlight: 1, backlogMs: 600, temperatureC: 71 },
        ...{ freeMemoryBytes: 700, degraded: '' },
      },
    ]);
  });

  it('is not asked twice while a device has not answered', async () => {
    const clock = new VirtualClock();
    const device = pretended('cpu:0');
    const loads = new DeviceLoads(clock, [device]);
    loads.read();
    loads.read();
    expect(device.asked).toBe(1);
    device.answer(status('cpu:0'));
    await clock.settleUntil();
    loads.read();
    expect(device.asked).toBe(2);
  });

  it('is forgotten of a device that answers no more, and says why one is not well', async () => {
    const clock = new VirtualClock();
    const [ill, gone] = [pretended('cpu:0'), pretended('wasm:0')] as const;
    const loads = new DeviceLoads(clock, [ill, gone]);
    loads.read();
    ill.answer(status('cpu:0', { health: 'degraded', reason: 'it is hot' }));
    gone.answer(status('wasm:0', { health: 'failed' }));
    await clock.settleUntil();
    expect(loads.read().map(({ device, degraded }) => [device, degraded])).toEqual([
      ['cpu:0', 'it is hot'],
      ['wasm:0', 'failed'],
    ]);
    gone.fail(new Error('stopped'));
    ill.answer(status('cpu:0'));
    await clock.settleUntil();
    expect(loads.read().map(({ device, degraded }) => [device, degraded])).toEqual([['cpu:0', '']]);
  });
});
