/**
 * Finds the other gateways of a grid: any of its hosts knows them all. A server that is no grid says so once and is not
 * asked again.
 *
 * Nothing waits for it: calls go on with the endpoints there are. It looks when a call is made and the last look is older
 * than `refreshMs`, and at once when an endpoint fails. A gateway that was found is used after it has answered itself:
 * addresses that cannot be reached from here, behind a translation or a firewall, cost no call anything.
 */
import { DiscoverRequest, DiscoverResponse } from '#gen/grid.js';
import type { Clock } from '#ports/clock.js';
import { completeEndpoint, isLoopback, type EndpointOptions } from './options.js';

const discoverPath = '/intarsia.grid.v1.Grid/Discover';
/** Least time between two looks, ms, whatever fails. */
const betweenMsMin = 250;
/** Time a look may take, ms. */
const lookMsMax = 3000;
const gatewaysMax = 256;

/** One question to one endpoint. Rejects with an IntarsiaError. */
export type AskEndpoint = (
  endpoint: EndpointOptions,
  path: string,
  message: Uint8Array,
  timeoutMs: number,
) => Promise<Uint8Array>;

export interface DiscoveryOptions {
  readonly clock: Clock;
  readonly refreshMs: number;
  readonly ask: AskEndpoint;
  /** Endpoints to ask, best first: one that is known to answer. */
  readonly askable: () => readonly EndpointOptions[];
  /** Whether a token may go to this endpoint, and with which TLS. Undefined: not to be used. */
  readonly secured: (endpoint: EndpointOptions) => EndpointOptions | undefined;
  /** The gateways that take requests and have answered. */
  readonly found: (endpoints: readonly EndpointOptions[]) => void;
}

export class Discovery {
  readonly #options: DiscoveryOptions;
  /** Gateways that have answered, by target. */
  readonly #proven = new Set<string>();
  #lookedMs = -Infinity;
  #looking: Promise<void> | undefined;
  #off = false;
  #revision = -1;

  constructor(options: DiscoveryOptions) {
    this.#options = options;
  }

  /** False once a server has said that it is no grid. */
  get isOn(): boolean {
    return !this.#off;
  }

  /** Revision of the newest answer; -1 before. */
  get revision(): number {
    return this.#revision;
  }

  /** A call is made. */
  called(): void {
    if (this.#off || this.#looking !== undefined) return;
    if (this.#options.clock.nowMs() - this.#lookedMs >= this.#options.refreshMs) void this.look();
  }

  /** An endpoint could not be reached. */
  failed(): void {
    if (this.#off || this.#looking !== undefined) return;
    if (this.#options.clock.nowMs() - this.#lookedMs >= betweenMsMin) void this.look();
  }

  close(): void {
    this.#off = true;
  }

  /** Looks now. Never rejects. */
  look(): Promise<void> {
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined;
      this.#lookedMs = this.#options.clock.nowMs();
    });
    return this.#looking;
  }

  async #look(): Promise<void> {
    const { askable, ask } = this.#options;
    for (const endpoint of askable().slice(0, 3)) {
      if (this.#off) return;
      try {
        const answer = DiscoverResponse.fromBinary(
          await ask(endpoint, discoverPath, DiscoverRequest.toBinary({}), lookMsMax),
        );
        this.#proven.add(endpoint.target);
        await this.#take(answer, endpoint);
        return;
      } catch (error) {
        if (codeOf(error) !== 'UNIMPLEMENTED' && codeOf(error) !== 'PERMISSION_DENIED') continue;
        this.#off = true;
        return;
      }
    }
  }

  async #take(answer: DiscoverResponse, teller: EndpointOptions): Promise<void> {
    // A host that was asked may be behind the one asked before.
    if (answer.revision < this.#revision) return;
    this.#revision = answer.revision;
    const usable = answer.gateways.filter(({ state }) => state === 'up');
    const chosen = (usable.length > 0 ? usable : answer.gateways).slice(0, gatewaysMax);
    const endpoints: EndpointOptions[] = [];
    for (const { grpcEndpoint } of chosen) {
      const endpoint = grpcEndpoint === '' ? undefined : completeEndpoint(grpcEndpoint, teller.tls);
      // What a host calls loopback is another machine than what this one calls so.
      if (endpoint === undefined || (isLoopback(endpoint.target) && !isLoopback(teller.target))) continue;
      const secured = this.#options.secured(endpoint);
      if (secured !== undefined) endpoints.push(secured);
    }
    for (const target of this.#proven) {
      if (!endpoints.some((endpoint) => endpoint.target === target)) this.#proven.delete(target);
    }
    await Promise.all(endpoints.map((endpoint) => this.#prove(endpoint)));
    if (!this.#off) this.#options.found(endpoints.filter(({ target }) => this.#proven.has(target)));
  }

  async #prove(endpoint: EndpointOptions): Promise<void> {
    if (this.#proven.has(endpoint.target)) return;
    try {
      await this.#options.ask(endpoint, discoverPath, DiscoverRequest.toBinary({}), lookMsMax);
      this.#proven.add(endpoint.target);
    } catch {
      // Not reachable from here, or gone already: the next look tries again.
    }
  }
}

function codeOf(error: unknown): string {
  return typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : '';
}
