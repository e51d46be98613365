/**
 * What operators ask of a grid and order in it, through any of its gateways: hosts, replicas, deployments, events. The
 * messages are those of proto/grid.proto. A host that serves alone answers UNIMPLEMENTED.
 */
import { intarsiaError } from '#core/errors.js';
import type { Clock } from '#ports/clock.js';
import {
  DeployRequest,
  DeployResponse,
  Event,
  OrderRequest,
  OrderResponse,
  StatusRequest,
  StatusResponse,
  UndeployRequest,
  UndeployResponse,
  WatchEventsRequest,
} from '#gen/grid.js';
import type { Caller, CallOptions } from './caller.js';
import { errorOfFailure } from './remote-error.js';

export type {
  DeployResponse as DeployResult,
  DeploymentStatus as GridDeployment,
  Event as GridEvent,
  HostStatus as GridHost,
  OrderResponse as OrderResult,
  ReplicaStatus as GridReplica,
  StatusResponse as GridStatus,
} from '#gen/grid.js';

const service = '/intarsia.grid.v1.Grid';

export interface GridCallsOptions {
  readonly caller: Caller;
  readonly clock: Clock;
  readonly metadata: Readonly<Record<string, string>>;
}

export class GridCalls {
  readonly #caller: Caller;
  readonly #clock: Clock;
  readonly #metadata: Readonly<Record<string, string>>;

  constructor({ caller, clock, metadata }: GridCallsOptions) {
    this.#caller = caller;
    this.#clock = clock;
    this.#metadata = metadata;
  }

  /** Hosts, replicas, deployments, leader and store, as the host that answers knows them. */
  async status(options: CallOptions = {}): Promise<StatusResponse> {
    return StatusResponse.fromBinary(await this.#call('Status', StatusRequest.toBinary({}), true, options));
  }

  /**
   * Says what a deployment changes and, unless `dryRun`, makes it desired. Applying the same text twice does no harm.
   * @throws INVALID_ARGUMENT (the text, with the path of each error), FAILED_PRECONDITION (it can never fit, and why)
   */
  async deploy(deploymentJson: string, options: CallOptions & { readonly dryRun?: boolean } = {}) {
    const request = DeployRequest.toBinary({ deploymentJson, dryRun: options.dryRun ?? false });
    return DeployResponse.fromBinary(await this.#call('Deploy', request, true, options));
  }

  /** @throws NOT_FOUND */
  async undeploy(name: string, options: CallOptions = {}): Promise<UndeployResponse> {
    return UndeployResponse.fromBinary(
      await this.#call('Undeploy', UndeployRequest.toBinary({ name }), false, options),
    );
  }

  /**
   * Cordon: no new replicas are placed on the host. Drain: everything is moved away, within `withinMs` (0: however long it
   * takes). Uncordon takes both back. @throws NOT_FOUND (no such host)
   */
  async order(
    host: string,
    order: 'cordon' | 'uncordon' | 'drain',
    options: CallOptions & { readonly reason?: string; readonly withinMs?: number } = {},
  ): Promise<OrderResponse> {
    const request = OrderRequest.toBinary({
      host,
      order,
      reason: options.reason ?? '',
      withinMs: options.withinMs ?? 0,
    });
    return OrderResponse.fromBinary(await this.#call('Order', request, true, options));
  }

  /**
   * Tells of events after the number `after` (0: of all that are kept), oldest first; with `follow` also of what happens
   * from then on, until `signal` ends it. Resolves with the number of the last one.
   * @throws what ended the stream; UNAVAILABLE when the host goes: ask again with the last number.
   */
  events(
    request: { readonly after: number; readonly follow: boolean },
    onEvent: (event: Event) => void,
    options: CallOptions = {},
  ): Promise<number> {
    this.#caller.admit();
    const { endpoint, channel } = this.#caller.acquireEndpoint();
    const deadlineMs = request.follow ? Infinity : this.#caller.deadlineMs(options);
    const deadlineWallMs = this.#clock.wallMs() + (deadlineMs - this.#clock.nowMs());
    let last = request.after;
    return new Promise((resolve, reject) => {
      const stop = (): void => stream.cancel();
      const stream = channel.stream(
        `${service}/WatchEvents`,
        { metadata: this.#metadata, deadlineWallMs },
        {
          message: (bytes) => {
            const event = Event.fromBinary(bytes);
            last = event.number;
            onEvent(event);
          },
          drained: () => {},
          end: (failure) => {
            options.signal?.removeEventListener('abort', stop);
            this.#caller.leave();
            this.#caller.releaseEndpoint(endpoint, 'healthy');
            if (failure === undefined || options.signal?.aborted === true) resolve(last);
            else reject(errorOfFailure(failure, this.#caller.endpointName(endpoint.index)));
          },
        },
      );
      if (options.signal?.aborted === true) stop();
      options.signal?.addEventListener('abort', stop, { once: true });
      stream.write(WatchEventsRequest.toBinary(request));
      stream.finish();
    });
  }

  async #call(method: string, message: Uint8Array, idempotent: boolean, options: CallOptions): Promise<Uint8Array> {
    try {
      return await this.#caller.call({ path: `${service}/${method}`, message, idempotent }, options);
    } catch (error) {
      if ((error as { readonly code?: unknown }).code !== 'UNIMPLEMENTED') throw error;
      throw intarsiaError(
        'UNIMPLEMENTED',
        'this host serves alone: start it with --etcd, --join or --store-port to make it part of a grid',
      );
    }
  }
}
