import { describe, expect, it } from 'vitest';
import { emptyView, type View, type ViewHost } from '#core/grid/records.js';
import { hostId, type HostId } from '#core/ids.js';
import { LinkedHosts } from '../../src/compose/linked-hosts.js';

const own = hostId('host-1');

function viewOf(revision: number, names: readonly string[]): View {
  const hosts = names.map((name): [HostId, ViewHost] => {
    const host = hostId(name);
    const record = {
      format: 1 as const,
      host,
      process: name,
      linkAddress: `${name}:8003`,
      grpcEndpoint: '',
      httpEndpoint: '',
      role: 'host' as const,
      softwareVersion: '0.1.0',
      linkVersions: [1, 1] as const,
      tier: 'regional' as const,
      zone: '',
      labels: {},
      spot: false,
      devices: [],
    };
    return [host, { record, generation: 1, state: 'up', cordoned: false }];
  });
  return { revision, hosts: new Map(hosts) };
}

function linked(): { readonly hosts: LinkedHosts; readonly calls: string[] } {
  const calls: string[] = [];
  const hosts = new LinkedHosts(own, {
    setPeer: (host, address) => calls.push(`${host} is at ${address}`),
    removePeer: (host) => calls.push(`${host} is gone`),
  });
  return { hosts, calls };
}

describe('hosts with links', () => {
  it('that were asked to let this one in keep their links until a view was read, and go with it when they are not there', () => {
    const { hosts, calls } = linked();
    hosts.begin(new Set([hostId('host-2'), hostId('host-3')]));
    hosts.follow(emptyView);
    expect(calls).toEqual([]);
    hosts.follow(viewOf(7, ['host-1', 'host-2']));
    expect(calls).toEqual(['host-2 is at host-2:8003', 'host-3 is gone']);
  });

  it('are those of the latest view, without this one', () => {
    const { hosts, calls } = linked();
    hosts.follow(viewOf(1, ['host-1', 'host-2', 'host-3']));
    hosts.follow(viewOf(2, ['host-1', 'host-3']));
    expect(calls).toEqual([
      'host-2 is at host-2:8003',
      'host-3 is at host-3:8003',
      'host-3 is at host-3:8003',
      'host-2 is gone',
    ]);
  });
});
