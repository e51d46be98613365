/** What a failure detector goes by. */
import type { HostId } from '../ids.js';
import type { LocalHealthLimits } from './local-health.js';
import type { TargetLimits } from './probe-target.js';
import type { SelfCheckLimits } from './self-check.js';

export interface DetectorOptions extends TargetLimits {
  readonly host: HostId;
  /** Text of this process. */
  readonly process: string;
  /** Hosts that each host observes, 1 to 16, default 3. More: found sooner, more probes. */
  readonly observed: number;
  /** Hosts that are asked to probe in one's place, 0 to 8, default 2. */
  readonly helpers: number;
  /** Between probes of a host that answers, ms, default 1,000. */
  readonly intervalMs: number;
  /** Between a failed round and the next, ms, default 200. */
  readonly retryMs: number;
  /** A vote whose voter has seen no failure for so long is withdrawn, ms, default 120,000. */
  readonly voteMsMax: number;
  /** News of others that a message carries at most, default 6. */
  readonly newsMax: number;
  readonly localHealth: LocalHealthLimits;
  readonly selfCheck: SelfCheckLimits;
}

/** A host that stopped answering is suspected by all after 2 to 4 seconds with these; one that pauses for 1 s is not. */
export const detectorDefaults: Omit<DetectorOptions, 'host' | 'process'> = {
  observed: 3,
  helpers: 2,
  intervalMs: 1_000,
  retryMs: 200,
  voteMsMax: 120_000,
  newsMax: 6,
  failuresToSuspect: 3,
  roundTrip: { timeoutMsMin: 250, timeoutMsMax: 2_500, timeoutMsInitial: 500 },
  flaps: { quietMsMin: 1_000, quietMsMax: 120_000, forgetMs: 300_000 },
  localHealth: { pauseMs: 1_000, lagMs: 100, graceMs: 3_000 },
  selfCheck: { lagMs: 500, slowness: 5 },
};
