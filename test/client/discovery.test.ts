import { Server, ServerCredentials, status, type sendUnaryData, type ServerUnaryCall } from '@grpc/grpc-js';
import { afterEach, describe, expect, it } from 'vitest';
import { EndpointPicker, type EndpointState } from '#client/endpoint-picker.js';
import { connect, type ClientOptions, type InferenceClient } from '#client/index.js';
import { DiscoverResponse, type Gateway } from '#gen/grid.js';
import { ServerLiveResponse } from '#gen/inference.js';

const asIs = (bytes: Buffer): Buffer => bytes;
const unary = (path: string) => ({
  path,
  requestStream: false,
  responseStream: false,
  requestSerialize: asIs,
  requestDeserialize: asIs,
  responseSerialize: asIs,
  responseDeserialize: asIs,
});
type Callback = sendUnaryData<Buffer>;

/** A gateway of a grid that lists what it is told to, and may stand still. */
class PretendGateway {
  readonly server = new Server();
  endpoint = '';
  calls = 0;
  looks = 0;
  standsStill = false;
  revision = 1;
  /** Undefined: no grid. */
  listed: (() => readonly Partial<Gateway>[]) | undefined;

  static async start(listed?: () => readonly Partial<Gateway>[]): Promise<PretendGateway> {
    const gateway = new PretendGateway();
    gateway.listed = listed;
    gateway.server.addService(
      {
        live: unary('/inference.GRPCInferenceService/ServerLive'),
        discover: unary('/intarsia.grid.v1.Grid/Discover'),
      },
      {
        live: (_call: ServerUnaryCall<Buffer, Buffer>, callback: Callback) => {
          gateway.calls += 1;
          if (!gateway.standsStill) callback(null, Buffer.from(ServerLiveResponse.toBinary({ live: true })));
        },
        discover: (_call: ServerUnaryCall<Buffer, Buffer>, callback: Callback) => {
          gateway.looks += 1;
          if (gateway.standsStill) return;
          if (gateway.listed === undefined) callback({ code: status.UNIMPLEMENTED, details: 'no grid' });
          else callback(null, Buffer.from(gateway.answer()));
        },
      },
    );
    const port = await new Promise<number>((resolve, reject) => {
      gateway.server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      );
    });
    gateway.endpoint = `127.0.0.1:${port}`;
    started.push(gateway);
    return gateway;
  }

  answer(): Uint8Array {
    const blank: Gateway = {
      host: '',
      grpcEndpoint: '',
      httpEndpoint: '',
      role: 'host',
      zone: '',
      tier: 'core',
      state: 'up',
    };
    const gateways = (this.listed?.() ?? []).map((each) => ({ ...blank, ...each }));
    return DiscoverResponse.toBinary({ grid: 'test', revision: this.revision, gateways });
  }
}

const started: PretendGateway[] = [];
const clients: InferenceClient[] = [];
afterEach(() => {
  for (const client of clients.splice(0)) client.close();
  for (const { server } of started.splice(0)) server.forceShutdown();
});

function clientOf(endpoints: readonly string[], options: Partial<ClientOptions> = {}): InferenceClient {
  const client = connect({ endpoints, discoveryMs: 100, ...options });
  clients.push(client);
  return client;
}

const names = (client: InferenceClient): string[] => client.endpoints.map(({ name }) => name).sort();

/** Calls until the condition holds: discovery goes on beside calls. */
async function callUntil(client: InferenceClient, condition: () => boolean): Promise<void> {
  for (let calls = 0; !condition(); calls += 1) {
    expect(calls).toBeLessThan(5000);
    await client.live();
  }
}

describe('a client of a grid', () => {
  it('learns all gateways from the one it was given, and uses them all', async () => {
    const gateways: PretendGateway[] = [];
    const list = (): Partial<Gateway>[] => gateways.map(({ endpoint }) => ({ grpcEndpoint: endpoint }));
    for (let index = 0; index < 3; index += 1) gateways.push(await PretendGateway.start(list));
    const client = clientOf([gateways[0]!.endpoint]);
    await callUntil(client, () => gateways.every(({ calls }) => calls > 0));
    expect(names(client)).toEqual(gateways.map(({ endpoint }) => endpoint).sort());
  });

  it('goes on at once with another gateway when one is gone, without an error', async () => {
    const gateways: PretendGateway[] = [];
    const list = (): Partial<Gateway>[] => gateways.map(({ endpoint }) => ({ grpcEndpoint: endpoint }));
    for (let index = 0; index < 3; index += 1) gateways.push(await PretendGateway.start(list));
    const [first, second, third] = gateways as [PretendGateway, PretendGateway, PretendGateway];
    const client = clientOf([first.endpoint]);
    await callUntil(client, () => gateways.every(({ calls }) => calls > 0));
    first.server.forceShutdown();
    for (let call = 0; call < 50; call += 1) expect(await client.live()).toBe(true);
    expect(second.calls + third.calls).toBeGreaterThanOrEqual(50);
  });

  it('asks another gateway when one stands still, long before the deadline, and leaves that one alone', async () => {
    const gateways: PretendGateway[] = [];
    const list = (): Partial<Gateway>[] => gateways.map(({ endpoint }) => ({ grpcEndpoint: endpoint }));
    for (let index = 0; index < 2; index += 1) gateways.push(await PretendGateway.start(list));
    const [first, second] = gateways as [PretendGateway, PretendGateway];
    const client = clientOf([first.endpoint, second.endpoint], { timeoutMs: 20_000 });
    await callUntil(client, () => first.calls > 5 && second.calls > 5);
    second.standsStill = true;
    const before = first.calls;
    for (let call = 0; call < 20; call += 1) expect(await client.live()).toBe(true);
    expect(first.calls - before).toBe(20);
    expect(client.statistics.overdue).toBe(1);
  });

  it('asks another gateway beside one that stands still also when all of them seem to', () => {
    const picker = new EndpointPicker(2, 'least-in-flight', { failuresMax: 3, ejectMsMin: 1_000, ejectMsMax: 1_000 });
    const [first, second] = picker.states as [EndpointState, EndpointState];
    picker.suspect(first, 0);
    picker.suspect(second, 1);
    expect(picker.acquire(new Set(), 2)).toBe(first);
    expect(picker.hasAnother(new Set(), first.index)).toBe(true);
    expect(picker.acquire(new Set([first.index]), 3, true)).toBe(second);
    // The first one's time is over; it is the one that stands still all the same.
    expect(picker.acquire(new Set([first.index]), 1_000, true)).toBe(second);
  });

  it('follows the membership: a new gateway is used, one that drains gets nothing more', async () => {
    const states = new Map<PretendGateway, string>();
    const list = (): Partial<Gateway>[] =>
      [...states].map(([{ endpoint }, state]) => ({ grpcEndpoint: endpoint, state }));
    const first = await PretendGateway.start(list);
    const second = await PretendGateway.start(list);
    states.set(first, 'up');
    const client = clientOf([first.endpoint]);
    await callUntil(client, () => first.looks > 0);
    states.set(second, 'up');
    first.revision = 2;
    second.revision = 2;
    await callUntil(client, () => second.calls > 0);
    states.set(first, 'draining');
    first.revision = 3;
    second.revision = 3;
    let seen = -1;
    let quietFor = 0;
    await callUntil(client, () => {
      quietFor = first.calls === seen ? quietFor + 1 : 0;
      seen = first.calls;
      return quietFor > 10;
    });
    const before = first.calls;
    for (let call = 0; call < 20; call += 1) await client.live();
    expect(first.calls).toBe(before);
  });

  it('uses no gateway that cannot be reached from here', async () => {
    const gateway = await PretendGateway.start(() => [
      { grpcEndpoint: gateway.endpoint },
      { grpcEndpoint: '127.0.0.1:1' },
      { grpcEndpoint: 'not an endpoint' },
      { grpcEndpoint: '' },
    ]);
    const client = clientOf([gateway.endpoint]);
    await callUntil(client, () => gateway.looks > 1);
    expect(names(client)).toEqual([gateway.endpoint]);
    expect(client.statistics.retries).toBe(0);
  });

  it('asks a server that is no grid once and works as without discovery', async () => {
    const gateway = await PretendGateway.start();
    const client = clientOf([gateway.endpoint]);
    await callUntil(client, () => gateway.looks > 0);
    for (let call = 0; call < 100; call += 1) await client.live();
    await new Promise<void>((resolve) => setImmediate(resolve));
    await client.live();
    expect(gateway.looks).toBe(1);
    expect(names(client)).toEqual([gateway.endpoint]);
  });

  it('asks nothing when discovery is off', async () => {
    const gateway = await PretendGateway.start(() => []);
    const client = clientOf([gateway.endpoint], { discovery: false });
    for (let call = 0; call < 20; call += 1) await client.live();
    expect(gateway.looks).toBe(0);
  });
});
