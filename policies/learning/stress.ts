/**
 * The stress suite, as data: what happens to a fleet in the middle of a run, what senders believe wrongly, and fleets that no
 * training has seen. A policy passes a case when it is at most 2 % worse than the rule and never goes against the mask.
 */
import { serviceMs } from '#core/scheduling/service-profile.js';
import type { Fleet, FleetDevice } from '#sim/fleet/fleet.js';
import type { FleetScenario } from './fleet-environment.js';

export interface StressCase {
  readonly name: string;
  readonly about: string;
  /** Another fleet than the cell's; its load is a share of what that fleet can do. */
  readonly fleet?: (fleet: Fleet) => Fleet;
  readonly change?: (run: StressedRun) => Partial<FleetScenario>;
}

export interface StressedRun {
  readonly fleet: Fleet;
  readonly requests: number;
  /** Expected time from the first arrival to the last, ms. */
  readonly spanMs: number;
}

/** Worse than the rule by more than this share: failed. */
export const stressChangeMax = 0.02;

/** The middle third of a run. */
function middle({ spanMs }: StressedRun): { readonly atMs: number; readonly forMs: number } {
  return { atMs: spanMs / 3, forMs: spanMs / 3 };
}

function stale(name: string, ageMs: number): StressCase {
  return {
    name,
    about: `answers become known ${ageMs / 1000} s late, all the time`,
    change: ({ spanMs }) => ({ faults: [{ kind: 'stale', atMs: 0, forMs: 100 * spanMs, ageMs }] }),
  };
}

export const stressSuite: readonly StressCase[] = [
  {
    name: 'device-loss',
    about: 'the device that can do most is gone for the middle third',
    change: (run) => ({ faults: [{ kind: 'loss', device: strongest(run.fleet).id, ...middle(run) }] }),
  },
  {
    name: 'straggler-5x',
    about: 'the device that can do most takes five times as long for the middle third',
    change: (run) => ({
      faults: [{ kind: 'straggler', device: strongest(run.fleet).id, ...middle(run), factor: 5 }],
    }),
  },
  {
    name: 'burst-10x',
    about: 'ten times the arrivals for a twentieth of the run; the mean stays',
    change: ({ requests }) => {
      // At one request a second, and ten in the burst, so many ms hold the requests; the rate is changed afterwards.
      const everyMs = (requests / 1.45) * 1000;
      return { arrivals: `flash:rate=1,factor=10,every=${everyMs.toFixed(0)},length=${(everyMs / 20).toFixed(0)}` };
    },
  },
  stale('stale-1s', 1_000),
  stale('stale-5s', 5_000),
  {
    name: 'profile-error-30',
    about: 'senders take run times for 30 % longer or shorter than they are, by type of device',
    change: () => ({ profileBias: 0.3 }),
  },
  {
    name: 'price-shock',
    about: 'the cheapest devices cost five times as much for the middle third',
    change: (run) => ({
      faults: cheapest(run.fleet).map(({ id }) => ({
        ...({ kind: 'price', device: id, factor: 5 } as const),
        ...middle(run),
      })),
    }),
  },
  {
    name: 'unseen-device',
    about: 'one more device, twice as fast as the fastest and three times as dear, far away',
    fleet: withUnseenDevice,
  },
  { name: 'fleet-4x', about: 'four of each device', fleet: fourfold },
];

/** Requests a ms in full batches, over the fleet's mix of models. */
function power(fleet: Fleet, device: FleetDevice): number {
  let sum = 0;
  for (const [index, { share, itemsMax }] of fleet.models.entries()) {
    const profile = device.service[index];
    if (profile !== undefined) sum += (share * itemsMax) / serviceMs(profile, itemsMax);
  }
  return sum;
}

function mostOf(fleet: Fleet, value: (device: FleetDevice) => number): FleetDevice {
  return fleet.devices.reduce((best, device) => (value(device) > value(best) ? device : best));
}

function strongest(fleet: Fleet): FleetDevice {
  return mostOf(fleet, (device) => power(fleet, device));
}

/** All devices of the type that does most for its price. */
function cheapest(fleet: Fleet): readonly FleetDevice[] {
  const { type } = mostOf(fleet, (device) => power(fleet, device) / Math.max(1e-9, device.usdPerHour));
  return fleet.devices.filter((device) => device.type === type);
}

function withUnseenDevice(fleet: Fleet): Fleet {
  const known = strongest(fleet);
  const unseen: FleetDevice = {
    ...known,
    id: 'unseen',
    type: 'unseen',
    usdPerHour: known.usdPerHour * 3,
    watts: known.watts * 2,
    netMs: known.netMs + 20,
    service: known.service.map((profile) =>
      profile === undefined ? undefined : { ...profile, ms: profile.ms.map((ms) => ms / 2) },
    ),
  };
  return { ...fleet, name: `${fleet.name} and one unseen`, devices: [...fleet.devices, unseen] };
}

function fourfold(fleet: Fleet): Fleet {
  const devices = [0, 1, 2, 3].flatMap((copy) =>
    fleet.devices.map((device) => ({ ...device, id: `${device.id}-x${copy}` })),
  );
  return { ...fleet, name: `four times ${fleet.name}`, devices };
}
