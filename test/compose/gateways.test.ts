import { connect } from 'node:net';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { NodeClock } from '#adapters/node/clock.js';
import { RecordingLog } from '#sim/recording-log.js';
import { completeConfig } from '../../src/config.js';
import { gatewayConfig, startGateways, type Gateways } from '../../src/compose/gateways.js';

const entry = fileURLToPath(new URL('gateway-program.mjs', import.meta.url));
const host = completeConfig({ name: 'h', grpcPort: 0, grid: { storePort: 4000, linkPort: 9000 } });

let running: Gateways | undefined;
afterEach(async () => {
  await running?.stop();
  running = undefined;
});

async function start(count: number, name = 'h'): Promise<Gateways> {
  const config = { ...host, name };
  running = await startGateways({
    entry,
    count,
    configOf: () => Promise.resolve(config),
    clock: new NodeClock(),
    log: new RecordingLog(),
    stopMsMax: 5000,
  });
  return running;
}

/** The process id that a new connection reaches; undefined when it is refused or cut. */
function reached(port: number): Promise<number | undefined> {
  return new Promise((resolve) => {
    let text = '';
    const socket = connect(port, '127.0.0.1');
    socket.on('data', (bytes) => (text += bytes.toString()));
    // A connection that was handed to a process in the moment of its death is answered by nobody.
    socket.setTimeout(500, () => socket.destroy());
    socket.on('error', () => resolve(undefined));
    socket.on('close', () => resolve(text === '' ? undefined : Number(text)));
  });
}

describe('gateway processes', () => {
  it('share one port: connections are spread over all of them', async () => {
    const { ports, processes } = await start(2);
    expect(processes).toHaveLength(2);
    const seen = new Set<number | undefined>();
    for (let count = 0; count < 20; count += 1) seen.add(await reached(ports.grpc));
    expect([...seen].sort()).toEqual([...processes].sort());
  });

  it('are started again when one dies, while the others go on', async () => {
    const gateways = await start(2);
    const [victim, other] = gateways.processes as [number, number];
    process.kill(victim, 'SIGKILL');
    const seen = new Set<number>();
    for (let tries = 0; ![...seen].some((pid) => pid !== victim && pid !== other); tries += 1) {
      expect(tries).toBeLessThan(100_000);
      const pid = await reached(gateways.ports.grpc);
      if (pid !== undefined) seen.add(pid);
    }
    expect(seen).toContain(other);
    expect(gateways.restarts).toBe(1);
    expect(gateways.processes).toHaveLength(2);
  });

  it('that cannot start say why, and leave none behind', async () => {
    await expect(start(2, 'broken')).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining('it is broken') as unknown,
    });
  });

  it('stop when told to', async () => {
    const gateways = await start(1);
    const [pid] = gateways.processes as [number];
    await gateways.stop();
    expect(gateways.processes).toEqual([]);
    expect(() => process.kill(pid, 0)).toThrow('ESRCH');
  });
});

describe('the configuration of a gateway process', () => {
  it('has the ports of clients, ports of its own for links and metrics, no devices, and joins the store of the host', async () => {
    const config = await gatewayConfig(
      completeConfig({ name: 'h', repositories: ['models'], grid: { storePort: 4000 } }),
      2,
      '127.0.0.1:4000',
    );
    expect(config).toMatchObject({ name: 'h-g2', repositories: [], grpcPort: 8001, httpPort: 8000, metricsPort: 8202 });
    expect(config.grid).toMatchObject({
      role: 'gateway',
      gateways: 0,
      storePort: -1,
      join: '127.0.0.1:4000',
      linkPort: 8203,
    });
  });

  it('is refused where its ports would be none', async () => {
    const config = completeConfig({ name: 'h', metricsPort: 65_500, grid: { storePort: 4000 } });
    await expect(gatewayConfig(config, 1, '')).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: 'metrics of gateway process 1 would be port 65600, above 65,535',
    });
  });

  it('finds free ports where any will do', async () => {
    const config = await gatewayConfig(
      completeConfig({ name: 'h', metricsPort: 0, grid: { linkPort: 0, storePort: 0 } }),
      1,
      '127.0.0.1:1',
    );
    expect(config.metricsPort).toBeGreaterThan(0);
    expect(config.grid?.linkPort).toBeGreaterThan(0);
    expect(config.metricsPort).not.toBe(config.grid?.linkPort);
  });

  it('needs a grid', async () => {
    await expect(gatewayConfig(completeConfig({ name: 'h' }), 1, '')).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
  });
});
