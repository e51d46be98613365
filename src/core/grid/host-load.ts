/**
 * What hosts tell each other about their load, along with probes: small, often, without guarantee. Pickers may use it;
 * membership does not depend on it.
 */
import type { DeviceId, HostId } from '../ids.js';

export interface DeviceLoad {
  readonly device: DeviceId;
  /** Requests that wait, and that are being computed. */
  readonly queued: number;
  readonly inFlight: number;
  /** Predicted time until what waits is done, ms; 0 when unknown. */
  readonly backlogMs: number;
  /** Degrees Celsius; 0 when unknown. */
  readonly temperatureC: number;
  /** Bytes that models may still take there; absent from hosts of earlier versions. */
  readonly freeMemoryBytes?: number;
  /** Why it should get no work: slow, hot, a failing canary. Empty when it is well. */
  readonly degraded: string;
}

export interface HostLoad {
  /** At most 16; those in the worst state when there are more. */
  readonly devices: readonly DeviceLoad[];
  /** Lag of its event loop, smoothed, ms. */
  readonly eventLoopLagMs: number;
  /** Why the host as a whole should get less work. Empty when it is well. */
  readonly degraded: string;
}

/** News of one host, its own words, as they travel from host to host. */
export interface HostNews {
  readonly host: HostId;
  /** Text of the process that said it: news of an earlier one are void. */
  readonly process: string;
  /** Grows with each saying of that process. */
  readonly sequence: number;
  /** Revision of the view it had. */
  readonly viewRevision: number;
  /** Time since it said so, as far as it travelled in hosts' hands, ms. */
  readonly ageMs: number;
  readonly load: HostLoad;
}

/** What a host knows about another one. */
export interface PeerStatus {
  /** False when this host cannot reach it, whatever others say. Of hosts it does not observe: true. */
  readonly reachable: boolean;
  /** Why it should get less work: its own words. Empty when it is well. */
  readonly degraded: string;
  /** Undefined before the first news. */
  readonly load: HostLoad | undefined;
  /** Moment on this host's monotonic clock of the newest news, ms; -Infinity before. */
  readonly learnedMs: number;
  /** Revision of the view that it is known to have; 0 before the first news. */
  readonly viewRevision: number;
  /** Smoothed time to an answer, ms; 0 when it is not observed. */
  readonly roundTripMs: number;
}

/** Messages between detectors: a few hundred bytes. Numbers are the sender's own. */
export type ProbeMessage =
  | {
      readonly type: 'ping';
      readonly from: HostId;
      readonly number: number;
      /** How many times slower than usual the receiver answers this sender. */
      readonly slowness: number;
      readonly news: readonly HostNews[];
    }
  | {
      readonly type: 'ack';
      readonly from: HostId;
      readonly number: number;
      readonly process: string;
      readonly news: readonly HostNews[];
    }
  /** Please ping the target in my place, and say within so many ms whether that process answers. */
  | {
      readonly type: 'relay';
      readonly from: HostId;
      readonly number: number;
      readonly target: HostId;
      readonly process: string;
      readonly waitMs: number;
    }
  | {
      readonly type: 'relayed';
      readonly from: HostId;
      readonly number: number;
      readonly target: HostId;
      readonly ok: boolean;
    };

export const devicesPerLoadMax = 16;

/** The devices that fit into a load, degraded and busy ones first when some must be left out. */
export function boundedDevices(devices: readonly DeviceLoad[]): readonly DeviceLoad[] {
  if (devices.length <= devicesPerLoadMax) return devices;
  const weight = (device: DeviceLoad): number => (device.degraded === '' ? 0 : 1e12) + device.queued;
  return [...devices].sort((left, right) => weight(right) - weight(left)).slice(0, devicesPerLoadMax);
}
