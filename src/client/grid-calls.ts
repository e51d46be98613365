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
  OrderPolicyRequest,
  OrderPolicyResponse,
  OrderRequest,
  OrderResponse,
  PoliciesRequest,
  PolicyBook,
  type PreparedSplit,
  PrepareSplitProgress,
  PrepareSplitRequest,
  ProfilesRequest,
  ProfilesResponse,
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
  OrderPolicyResponse as PolicyResult,
  PolicyBook,
  PreparedSplit,
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

  /**
   * Makes the split that a deployment wants, on the host that answers, and compares it with the whole model; with `dryRun`
   * it only says where the stages would go. What comes back holds the deployment for `deploy`, or why it is refused.
   * @throws INVALID_ARGUMENT (no such cut), RESOURCE_EXHAUSTED (the host compares another one)
   */
  async prepareSplit(
    deploymentJson: string,
    options: CallOptions & {
      readonly dryRun?: boolean;
      readonly onProgress?: (share: number, words: string) => void;
    } = {},
  ): Promise<PreparedSplit> {
    const deadlineMs = options.timeoutMs === undefined ? Infinity : this.#caller.deadlineMs(options);
    let prepared: PreparedSplit | undefined;
    const message = PrepareSplitRequest.toBinary({ deploymentJson, dryRun: options.dryRun ?? false });
    await this.#stream({ method: 'PrepareSplit', message, deadlineMs }, options, (bytes) => {
      const { share, words, result } = PrepareSplitProgress.fromBinary(bytes);
      if (result === undefined) options.onProgress?.(share, words);
      else prepared = result;
    });
    if (prepared === undefined) throw intarsiaError('UNAVAILABLE', 'the host ended the call without a result');
    return prepared;
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

  /** What hosts measured of the model of this file and of links between them, and what the grid calls it. */
  async profiles(digest: string, options: CallOptions = {}): Promise<ProfilesResponse> {
    const request = ProfilesRequest.toBinary({ digest });
    return ProfilesResponse.fromBinary(await this.#call('Profiles', request, true, options));
  }

  /** Which policy dispatches requests, versions of policies, and what gateways saw of the one on trial. */
  async policies(options: CallOptions = {}): Promise<PolicyBook> {
    return PolicyBook.fromBinary(await this.#call('Policies', PoliciesRequest.toBinary({}), true, options));
  }

  /**
   * Promotes a policy by a step, or takes it back. What is left out holds as it is; without `expectedRevision` (that of
   * `policies`) it is done whatever others did meanwhile. Not applied when a gate refuses it.
   * @throws MODEL_INVALID (the file), NOT_FOUND, INVALID_ARGUMENT, FAILED_PRECONDITION (somebody else changed it meanwhile)
   */
  async orderPolicy(
    order: Pick<OrderPolicyRequest, 'step'> & Partial<OrderPolicyRequest>,
    options: CallOptions = {},
  ): Promise<OrderPolicyResponse> {
    const request = OrderPolicyRequest.toBinary(OrderPolicyRequest.create({ expectedRevision: -1, ...order }));
    return OrderPolicyResponse.fromBinary(await this.#call('OrderPolicy', request, false, options));
  }

  /**
   * Tells of events after the number `after` (0: of all that are kept), oldest first; with `follow` also of what happens
   * from then on, until `signal` ends it. Resolves with the number of the last one.
   * @throws what ended the stream; UNAVAILABLE when the host goes: ask again with the last number.
   */
  async events(
    request: { readonly after: number; readonly follow: boolean },
    onEvent: (event: Event) => void,
    options: CallOptions = {},
  ): Promise<number> {
    const deadlineMs = request.follow ? Infinity : this.#caller.deadlineMs(options);
    let last = request.after;
    const message = WatchEventsRequest.toBinary(request);
    await this.#stream({ method: 'WatchEvents', message, deadlineMs }, options, (bytes) => {
      const event = Event.fromBinary(bytes);
      last = event.number;
      onEvent(event);
    });
    return last;
  }

  /** One request, answers until the end. Resolves too when `signal` ends it. */
  #stream(
    {
      method,
      message,
      deadlineMs,
    }: { readonly method: string; readonly message: Uint8Array; readonly deadlineMs: number },
    options: CallOptions,
    onMessage: (bytes: Uint8Array) => void,
  ): Promise<void> {
    this.#caller.admit();
    const { endpoint, channel } = this.#caller.acquireEndpoint();
    const deadlineWallMs = this.#clock.wallMs() + (deadlineMs - this.#clock.nowMs());
    return new Promise((resolve, reject) => {
      const stop = (): void => stream.cancel();
      const stream = channel.stream(
        `${service}/${method}`,
        { metadata: this.#metadata, deadlineWallMs },
        {
          message: onMessage,
          drained: () => {},
          end: (failure) => {
            options.signal?.removeEventListener('abort', stop);
            this.#caller.leave();
            this.#caller.releaseEndpoint(endpoint, 'healthy');
            if (failure === undefined || options.signal?.aborted === true) resolve();
            else reject(errorOfFailure(failure, this.#caller.endpointName(endpoint.index)));
          },
        },
      );
      if (options.signal?.aborted === true) stop();
      options.signal?.addEventListener('abort', stop, { once: true });
      stream.write(message);
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
