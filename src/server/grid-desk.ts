/**
 * What operators and clients ask of the grid, answered by any gateway: from the view it has, and from the store where the
 * view does not tell. Orders and deployments are written to the store; whoever leads carries them out.
 */
import { asIntarsiaError, intarsiaError } from '#core/errors.js';
import type { Deployment } from '#core/grid/records.js';
import type { ServingStage } from '#core/split/replan.js';
import type {
  DeployOutcome,
  GridAdmin,
  GridCall,
  GridEventListener,
  GridHosts,
  GridProfiles,
  GridReplicaStatus,
  GridStatus,
  PreparedSplit,
} from '#ports/grid-admin.js';
import type { PolicyBook, PolicyOrder, PolicyOutcome } from '#ports/policy-admin.js';
import type { StoreCallOptions } from '#ports/store.js';
import type { ViewNews } from '#actors/membership/protocol.js';
import { DeploymentDesk, type DeploymentDeskOptions } from './deployment-desk.js';
import { watchGridEvents } from './grid-events.js';
import { readDesired, readLeaderName, storeDeadline } from './grid-reads.js';
import { byHost, gatewayOf, hostStatuses, servedReport } from './grid-status.js';
import { orderHost, type HostOrderRequest } from './host-orders.js';
import { PolicyDesk, type PolicyTools } from './policy-desk.js';
import { publishedProfiles } from './published-profiles.js';

export interface GridDeskOptions extends DeploymentDeskOptions {
  readonly grid: string;
  /** What the store is, in words: `etcd` or `embedded`. */
  readonly storeKind: string;
  /** What policies are checked with; absent: none is promoted through this host. */
  readonly policyTools?: PolicyTools;
  /** What is served as far as this gateway knows, for as long as the store does not say. Default: nothing is known. */
  readonly served?: () => readonly GridReplicaStatus[];
}

const listenersMax = 10_000;

export class GridDesk implements GridAdmin {
  readonly #options: GridDeskOptions;
  readonly #deployments: DeploymentDesk;
  readonly #policies: PolicyDesk | undefined;
  readonly #listeners = new Set<(hosts: GridHosts) => void>();
  #news: ViewNews | undefined;

  constructor(options: GridDeskOptions) {
    this.#options = options;
    this.#deployments = new DeploymentDesk(options, () => this.#news?.view);
    const { policyTools: tools } = options;
    this.#policies = tools === undefined ? undefined : new PolicyDesk({ ...options, tools });
  }

  /** The newest view: subscribe it at the membership actor. */
  tell(news: ViewNews): void {
    const before = this.#news?.view;
    this.#news = news;
    if (before === news.view) return;
    const hosts = this.discover();
    for (const listener of this.#listeners) listener(hosts);
  }

  discover(): GridHosts {
    const { grid } = this.#options;
    const view = this.#news?.view;
    const gateways = [...(view?.hosts.values() ?? [])].filter(({ record }) => record.grpcEndpoint !== '');
    return { grid, revision: view?.revision ?? 0, gateways: gateways.map(gatewayOf).sort(byHost) };
  }

  watchHosts(listener: (hosts: GridHosts) => void): () => void {
    if (this.#listeners.size >= listenersMax) {
      throw intarsiaError('RESOURCE_EXHAUSTED', `${listenersMax} watchers of hosts are here already`, { listenersMax });
    }
    let isOver = false;
    const told = (hosts: GridHosts): void => {
      if (!isOver) listener(hosts);
    };
    this.#listeners.add(told);
    this.#options.clock.defer(() => told(this.discover()));
    return () => {
      isOver = true;
      this.#listeners.delete(told);
    };
  }

  async status(call: GridCall): Promise<GridStatus> {
    const { grid, host, storeKind } = this.#options;
    const news = this.#news;
    const common = {
      grid,
      revision: news?.view.revision ?? 0,
      host,
      store: storeKind,
      hosts: hostStatuses(news),
    };
    try {
      const until = this.#until(call);
      const [state, leader] = await Promise.all([
        readDesired(this.#options, until),
        readLeaderName(this.#options, until),
      ]);
      return { ...common, leader, storeConnected: news?.stale === false, ...servedReport(state) };
    } catch (error) {
      // Without the store the view is still worth telling: an operator looks because the store is away.
      if (!asIntarsiaError(error).retryable && asIntarsiaError(error).code !== 'DEADLINE_EXCEEDED') throw error;
      const replicas = this.#options.served?.() ?? [];
      return { ...common, leader: '', storeConnected: false, replicas, deployments: [] };
    }
  }

  watchEvents(request: { readonly after: number; readonly follow: boolean }, listener: GridEventListener): () => void {
    return watchGridEvents(this.#options, request, listener);
  }

  deploy(
    request: { readonly deploymentJson: string; readonly dryRun: boolean },
    call: GridCall,
  ): Promise<DeployOutcome> {
    return this.#deployments.deploy(request, call);
  }

  prepareSplit(
    request: { readonly deploymentJson: string; readonly dryRun: boolean },
    call: GridCall,
    onProgress: (share: number, words: string) => void,
  ): Promise<PreparedSplit> {
    return this.#deployments.prepareSplit(request, call, onProgress);
  }

  /** See `DeploymentDesk.planAgain`. */
  planAgain(
    deployment: Deployment,
    stages: readonly ServingStage[],
    call: Pick<GridCall, 'deadlineMs'>,
  ): Promise<Deployment | undefined> {
    return this.#deployments.planAgain(deployment, stages, call);
  }

  async profiles({ digest }: { readonly digest: string }, call: GridCall): Promise<GridProfiles> {
    const { store, keys } = this.#options;
    return await publishedProfiles(digest, { store, keys, ...this.#until(call) });
  }

  undeploy(request: { readonly name: string }, call: GridCall): Promise<{ readonly replicas: number }> {
    return this.#deployments.undeploy(request, call);
  }

  order(
    request: HostOrderRequest,
    call: GridCall,
  ): Promise<{ readonly cordoned: boolean; readonly draining: boolean }> {
    const { store, keys, clock } = this.#options;
    return orderHost({ store, keys, clock, view: this.#news?.view }, request, this.#until(call));
  }

  policies(call: GridCall): Promise<PolicyBook> {
    return this.#policyDesk().policies(call);
  }

  orderPolicy(order: PolicyOrder, call: GridCall): Promise<PolicyOutcome> {
    return this.#policyDesk().orderPolicy(order, call);
  }

  #policyDesk(): PolicyDesk {
    if (this.#policies === undefined) throw intarsiaError('UNIMPLEMENTED', 'this host promotes no policies', {});
    return this.#policies;
  }

  #until(call: StoreCallOptions): StoreCallOptions {
    return storeDeadline(this.#options.clock, call);
  }
}
