/**
 * grpc.health.v1: what is serving, once (Check) or at each change (Watch).
 *
 * The empty service name asks whether the host lives, as with Triton; the inference service's name whether it takes
 * requests; any other name is a model's. Watchers share one timer that compares states: changes show within a quarter of a
 * second, and a catalogue that changes often costs nothing more.
 */
import { intarsiaError } from '#core/errors.js';
import type { Clock, Timer } from '#ports/clock.js';
import type { Caller } from '#ports/inference-gateway.js';

export type ServingStatus = 'SERVING' | 'NOT_SERVING' | 'SERVICE_UNKNOWN';

export interface HealthOptions {
  readonly clock: Clock;
  readonly live: () => boolean;
  readonly ready: () => boolean;
  /** Whether a model is known, and takes requests. */
  readonly model: (name: string) => { readonly known: boolean; readonly ready: boolean };
  /** Watchers at once. Default 1,000; further ones are refused. */
  readonly watchersMax?: number;
}

export interface Health {
  check(service: string, caller: Caller): ServingStatus;
  /** Tells the status now and at each change until the returned function is called. @throws RESOURCE_EXHAUSTED */
  watch(service: string, caller: Caller, listener: (status: ServingStatus) => void): () => void;
}

const watchersMaxDefault = 1000;
const compareEveryMs = 250;
const hostServices = new Set(['inference.GRPCInferenceService', 'grpc.health.v1.Health']);

interface Watcher {
  readonly service: string;
  readonly caller: Caller;
  readonly listener: (status: ServingStatus) => void;
  last: ServingStatus;
}

export function createHealth(options: HealthOptions): Health {
  const watchersMax = options.watchersMax ?? watchersMaxDefault;
  const watchers = new Set<Watcher>();
  let timer: Timer | undefined;

  function check(service: string, caller: Caller): ServingStatus {
    if (service === '') return options.live() ? 'SERVING' : 'NOT_SERVING';
    if (hostServices.has(service)) return options.ready() ? 'SERVING' : 'NOT_SERVING';
    if (!caller.mayUse(service)) return 'SERVICE_UNKNOWN';
    const { known, ready } = options.model(service);
    return known ? (ready ? 'SERVING' : 'NOT_SERVING') : 'SERVICE_UNKNOWN';
  }

  function compare(): void {
    for (const watcher of watchers) {
      const status = check(watcher.service, watcher.caller);
      if (status === watcher.last) continue;
      watcher.last = status;
      watcher.listener(status);
    }
    timer = watchers.size === 0 ? undefined : options.clock.schedule(compareEveryMs, compare);
  }

  return {
    check,
    watch(service, caller, listener) {
      if (watchers.size >= watchersMax) {
        throw intarsiaError('RESOURCE_EXHAUSTED', `${watchersMax} clients watch the health of this host already`, {
          limit: watchersMax,
        });
      }
      const watcher: Watcher = { service, caller, listener, last: check(service, caller) };
      watchers.add(watcher);
      timer ??= options.clock.schedule(compareEveryMs, compare);
      listener(watcher.last);
      return () => {
        watchers.delete(watcher);
        if (watchers.size > 0) return;
        timer?.cancel();
        timer = undefined;
      };
    },
  };
}
