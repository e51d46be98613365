/** Real links between hosts, over loopback and a proxy that can be frozen and broken. */
import { describe, expect, it, onTestFinished } from 'vitest';
import { hostId } from '#core/ids.js';
import { collector, remoteDeliveryContract, type LinkedHosts, type Numbered } from '#test/contract/remote-delivery.js';
import type { LinkEvent } from '#ports/links.js';
import { startRealHost, waitUntil, type RealHost, type RealHostOptions } from './real-host.js';
import { newAuthority, writeIdentity } from '../security/grid-certificates.js';
import { newFolder } from '../weights/weights-folder.js';
import { TcpProxy } from './tcp-proxy.js';

async function host(options: RealHostOptions): Promise<RealHost> {
  const started = await startRealHost(options);
  onTestFinished(() => started.close());
  return started;
}

/** `near` reaches `far` through a proxy; `far` does not know where `near` is, so that `near` dials. */
async function realPair(
  options: (name: string) => Partial<RealHostOptions> = () => ({}),
): Promise<LinkedHosts & { readonly proxy: TcpProxy }> {
  const near = await startRealHost({ name: 'near', ...options('near') });
  let far = await startRealHost({ name: 'far', ...options('far') });
  const proxy = await TcpProxy.start(far.server.port);
  near.links.setPeer(hostId('far'), `127.0.0.1:${proxy.port}`);
  near.links.peer('far').connect();
  const ends = [near, far];
  await waitUntil('the first link', () => ends.every(({ links }) => links.peers()[0]?.state === 'up'));
  return {
    near,
    get far() {
      return far;
    },
    proxy,
    until: (what, condition) => waitUntil(what, condition),
    cut: () => {
      proxy.freeze();
    },
    heal: () => {
      proxy.thaw();
    },
    restartFar: async () => {
      await far.close();
      far = await startRealHost({ name: 'far', ...options('far') });
      proxy.target = far.server.port;
    },
    close: async () => {
      await proxy.close();
      await Promise.all([near.close(), far.close()]);
    },
  };
}

describe('remote delivery over real links', { timeout: 60_000 }, () => {
  remoteDeliveryContract(() => realPair());
});

describe('remote delivery over real links with TLS', { timeout: 60_000 }, () => {
  const authority = newAuthority();
  const tls = (name: string) => ({
    ...writeIdentity(newFolder(), name, { authority, token: 'a'.repeat(32) }),
    grid: 'test',
  });
  remoteDeliveryContract(() => realPair((name) => ({ tls: tls(name) })));
});

describe('remote delivery with a host of the previous minor version', { timeout: 60_000 }, () => {
  remoteDeliveryContract(() => realPair((name) => (name === 'far' ? { versions: [1, 1] } : {})));
});

describe('real links', { timeout: 60_000 }, () => {
  it('come up once when both hosts dial at once, and carry both ways', async () => {
    const [a, b] = await Promise.all([host({ name: 'a' }), host({ name: 'b' })]);
    a.links.setPeer(hostId('b'), `127.0.0.1:${b.server.port}`);
    b.links.setPeer(hostId('a'), `127.0.0.1:${a.server.port}`);
    const atA = collector(a.system);
    const atB = collector(b.system);
    const message: Numbered = { type: 'numbered', number: 1, data: new Uint8Array() };
    await waitUntil('messages both ways', () => {
      if (atB.got.length === 0) a.system.ref<Numbered>(atB.ref.address).tell(message);
      if (atA.got.length === 0) b.system.ref<Numbered>(atA.ref.address).tell(message);
      return atA.got.length > 0 && atB.got.length > 0;
    });
    expect(a.links.peers()).toMatchObject([{ host: 'b', state: 'up', process: b.links.identity.process, version: 2 }]);
    expect(b.links.peers()).toMatchObject([{ host: 'a', state: 'up', process: a.links.identity.process }]);
    await waitUntil('a round trip', () => a.links.peers()[0]?.roundTripMs !== undefined);
    expect([a.links.counts.lost, b.links.counts.lost]).toEqual([0, 0]);
  });

  it('are lost at once when a connection breaks, and dialled again when something is sent', async () => {
    const hosts = await realPair();
    onTestFinished(() => hosts.close());
    const far = collector(hosts.far.system);
    const ref = hosts.near.system.ref<Numbered>(far.ref.address);
    const events: LinkEvent[] = [];
    hosts.near.links.subscribe((event) => events.push(event));
    // Control and bulk, each with a connection for either direction.
    expect(hosts.proxy.connections).toBe(4);
    hosts.proxy.break();
    await waitUntil('the loss', () => events.some(({ type }) => type === 'lost'));
    await waitUntil('a message over the next link', () => {
      ref.tell({ type: 'numbered', number: 1, data: new Uint8Array() });
      return far.got.length > 0;
    });
    expect(events.map(({ type }) => type)).toEqual(['lost', 'up']);
  });

  it('let small messages to others pass a large one', async () => {
    const hosts = await realPair();
    onTestFinished(() => hosts.close());
    const order: string[] = [];
    const sink = (name: string) =>
      hosts.far.system.spawn<Numbered>(name, () => ({
        receive: ({ data }) => void order.push(`${name} ${data.length}`),
      }));
    const [one, other] = [sink('one'), sink('other')];
    const toOne = hosts.near.system.ref<Numbered>(one.address);
    toOne.tell({ type: 'numbered', number: 0, data: new Uint8Array(40_000_000) });
    toOne.tell({ type: 'numbered', number: 1, data: new Uint8Array(1) });
    hosts.near.system.ref<Numbered>(other.address).tell({ type: 'numbered', number: 2, data: new Uint8Array(2) });
    await waitUntil('all three', () => order.length === 3);
    expect(order).toEqual(['other 2', 'one 40000000', 'one 1']);
  });

  it('refuse another grid, another host, incompatible versions with both ranges, and a second host of the name', async () => {
    const here = await host({ name: 'here' });
    const at = `127.0.0.1:${here.server.port}`;
    const refusal = async (options: RealHostOptions, target = 'here'): Promise<string> => {
      const stranger = await host(options);
      const events: LinkEvent[] = [];
      stranger.links.subscribe((event) => events.push(event));
      stranger.links.setPeer(hostId(target), at);
      stranger.links.peer(target).connect();
      await waitUntil('the refusal', () => events.some(({ type }) => type === 'refused'));
      expect(stranger.links.peers()[0]?.state).not.toBe('up');
      return events.find(({ type }) => type === 'refused')?.reason ?? '';
    };
    expect(await refusal({ name: 'stranger', grid: 'other' })).toContain('this host is of the grid "test"');
    expect(await refusal({ name: 'stranger' }, 'there')).toContain('host there is wanted and this is host here');
    const versions = await refusal({ name: 'future', versions: [7, 9] });
    expect(versions).toContain('link versions 1 to 2');
    expect(versions).toContain('7 to 9');
    const first = await host({ name: 'twin' });
    first.links.setPeer(hostId('here'), at);
    first.links.peer('here').connect();
    await waitUntil('the first twin', () =>
      here.links.peers().some(({ host: name, state }) => name === 'twin' && state === 'up'),
    );
    expect(await refusal({ name: 'twin' })).toContain('another process is host twin in this grid already');
    expect(first.links.peers()[0]?.state).toBe('up');
  });

  it('speak the highest version that both sides know', async () => {
    const [older, newer] = await Promise.all([
      host({ name: 'older', versions: [1, 2] }),
      host({ name: 'newer', versions: [2, 5] }),
    ]);
    older.links.setPeer(hostId('newer'), `127.0.0.1:${newer.server.port}`);
    older.links.peer('newer').connect();
    const ends = [older, newer];
    await waitUntil('the link', () => ends.every(({ links }) => links.peers()[0]?.state === 'up'));
    expect([older.links.peers()[0]?.version, newer.links.peers()[0]?.version]).toEqual([2, 2]);
  });

  it('end cleanly: the other host knows at once', async () => {
    const hosts = await realPair();
    onTestFinished(() => hosts.close());
    const events: LinkEvent[] = [];
    hosts.far.links.subscribe((event) => events.push(event));
    (hosts.near as RealHost).links.close();
    await waitUntil('the word of it', () => events.length > 0);
    expect(events).toMatchObject([{ type: 'lost', host: 'near' }]);
    expect(hosts.near.links.send({ host: 'far', path: 'collector', incarnation: 0 }, 1)).toBe('stopped');
  });
});
