/**
 * A world for actors in one object: virtual time, one seed, and ports that remember. Everything that actors do enters the
 * trace, so that `traceHash` tells whether two runs were the same.
 */
import { isSameAddress } from '#core/actor-address.js';
import type { ActorAddress } from '#core/actor-address.js';
import type { Random } from '#ports/random.js';
import { actorChannelNames } from '#runtime/diagnostic-events.js';
import type { LifecycleEvent } from '#runtime/diagnostic-events.js';
import { ActorSystem } from '#runtime/system.js';
import type { ActorSystemOptions } from '#runtime/system.js';
import { seededRandom } from './random.js';
import { RecordingDiagnostics } from './recording-diagnostics.js';
import { RecordingLog } from './recording-log.js';
import { RecordingMetrics } from './recording-metrics.js';
import { Trace } from './trace.js';
import { VirtualClock } from './virtual-clock.js';
import type { VirtualClockOptions } from './virtual-clock.js';

export interface SimulationOptions extends Omit<VirtualClockOptions, 'trace'> {
  /** Determines every draw. Default 1. */
  readonly seed?: string | number;
}

export class Simulation {
  readonly seed: string | number;
  readonly trace = new Trace();
  readonly clock: VirtualClock;
  readonly random: Random;
  readonly log = new RecordingLog();
  readonly metrics = new RecordingMetrics();
  readonly diagnostics = new RecordingDiagnostics();

  constructor(options: SimulationOptions = {}) {
    this.seed = options.seed ?? 1;
    this.clock = new VirtualClock({ ...options, trace: this.trace });
    this.random = seededRandom(this.seed);
    this.traceActors();
  }

  /** An actor system in this world. Several hosts share its time and its ports; each has chance of its own. */
  system(options: Partial<ActorSystemOptions> = {}): ActorSystem {
    const host = options.host ?? 'host';
    return new ActorSystem({
      host,
      clock: this.clock,
      random: this.random.stream(`host ${host}`),
      log: this.log,
      metrics: this.metrics,
      diagnostics: this.diagnostics,
      ...options,
    });
  }

  /** A fingerprint of everything so far: the same seed and the same code give the same one. */
  traceHash(): string {
    return this.trace.hash();
  }

  /** Resolves when that actor's life reaches such a step. Listens from now on. */
  lifecycle(address: ActorAddress, type: LifecycleEvent['type']): Promise<LifecycleEvent> {
    return new Promise((resolve) => {
      const end = this.diagnostics.subscribe(actorChannelNames.lifecycle, (event) => {
        if (event.type !== type || !isSameAddress(event.address, address)) return;
        end();
        resolve(event);
      });
    });
  }

  private traceActors(): void {
    const { diagnostics, trace } = this;
    const place = ({ host, path, incarnation }: ActorAddress): void => {
      trace.text(`${host}/${path}`);
      trace.number(incarnation);
    };
    diagnostics.subscribe(actorChannelNames.lifecycle, (event) => {
      trace.text(event.type);
      place(event.address);
    });
    diagnostics.subscribe(actorChannelNames.message, (event) => {
      trace.text('message');
      place(event.address);
      trace.text(tagOf(event.message));
    });
    diagnostics.subscribe(actorChannelNames.deadLetter, (event) => {
      trace.text(event.reason);
      place(event.address);
      trace.text(tagOf(event.message));
    });
  }
}

/** What of a message enters the trace: its tag or, of plain values, the value. Payloads may be large and hold references. */
function tagOf(message: unknown): string {
  if (typeof message === 'object' && message !== null) {
    return 'type' in message && typeof message.type === 'string' ? message.type : 'object';
  }
  return String(message);
}
