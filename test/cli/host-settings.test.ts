import { describe, expect, it } from 'vitest';
import { completeConfig } from '#config.js';
import { environmentName, hostSettings } from '#cli/host-setting-table.js';
import { hostOptionsOf } from '#cli/host-settings.js';
import { pretendProgram, run } from './pretend-program.js';

const nothing = { flags: {}, env: {}, file: undefined, fileName: '' };

describe('options of a host', () => {
  it('come from the flag before the environment before the file', () => {
    const file = { grpcPort: 1, httpPort: 2, metricsPort: 3, limits: { queueRequestsMax: 5, sequencesMax: 6 } };
    const env = { INTARSIA_HTTP_PORT: '20', INTARSIA_METRICS_PORT: '30', INTARSIA_QUEUE_REQUESTS_MAX: '50' };
    const options = hostOptionsOf({ ...nothing, flags: { 'metrics-port': '300' }, env, file, fileName: 'f' });
    expect(options).toEqual({
      grpcPort: 1,
      httpPort: 20,
      metricsPort: 300,
      limits: { queueRequestsMax: 50, sequencesMax: 6 },
    });
  });

  it('cover every option there is', () => {
    const complete = completeConfig({
      tls: { certificatePath: '', keyPath: '', clientAuthorityPath: '' },
      grid: { join: '127.0.0.1:8004' },
    });
    const paths = Object.entries(complete).flatMap(([key, value]) =>
      ['limits', 'telemetry', 'tls', 'grid'].includes(key)
        ? Object.keys(value as object).map((inner) => `${key}.${inner}`)
        : [key],
    );
    expect(hostSettings.map(({ path }) => path.join('.')).sort()).toEqual(paths.sort());
  });

  it('make objects of what a flag says in one text', () => {
    const options = hostOptionsOf({
      ...nothing,
      flags: {
        'tenant-token': [`acme=${'a'.repeat(64)}`],
        restrict: ['statistics:x-key=secret=1'],
        'remote-device': ['triton=gpu-host:8001'],
        emulate: ['gpu:0=nvidia-l4,provider=wasm,timeScale=10'],
        place: ['digits=cpu:0,wasm'],
      },
    });
    expect(options).toEqual({
      tokens: [{ tenant: 'acme', sha256: 'a'.repeat(64) }],
      restricted: [{ group: 'statistics', header: 'x-key', value: 'secret=1' }],
      remoteDevices: [{ id: 'triton', endpoint: 'gpu-host:8001' }],
      emulatedDevices: [{ id: 'gpu:0', profile: 'nvidia-l4', provider: 'wasm', timeScale: 10 }],
      placements: [{ model: 'digits', devices: ['cpu:0', 'wasm'] }],
    });
    completeConfig(options);
  });

  it('read lists and switches from the environment', () => {
    const env = {
      INTARSIA_REPOSITORY: 'a;b',
      INTARSIA_EMULATE: 'g=nvidia-l4,timeScale=2;h=nvidia-t4',
      INTARSIA_ALLOW_PLAINTEXT: 'true',
      INTARSIA_NO_RECEIPTS: '1',
      INTARSIA_LOG_LEVEL: '',
    };
    expect(hostOptionsOf({ ...nothing, env })).toEqual({
      repositories: ['a', 'b'],
      emulatedDevices: [
        { id: 'g', profile: 'nvidia-l4', timeScale: 2 },
        { id: 'h', profile: 'nvidia-t4' },
      ],
      allowPlaintext: true,
      telemetry: { receipts: false },
    });
  });

  it.each([
    [{ env: { INTARSIA_GRPC_PORT: 'x' } }, 'INTARSIA_GRPC_PORT must be a number; it is x'],
    [{ env: { INTARSIA_ISOLATION: 'moon' } }, 'INTARSIA_ISOLATION must be one of process, thread; it is moon'],
    [
      { flags: { 'queue-bytes-max': '3 parsecs' } },
      '--queue-bytes-max must be a number of bytes such as 65536 or 64MiB',
    ],
    [{ flags: { restrict: ['nothing:a=b'] } }, '--restrict must be written group:header=value'],
    [{ file: { grpcPorts: 1 } }, 'host.yaml: there is no option grpcPorts; there are repositories, name'],
    [{ file: { limits: { x: 1 } } }, 'host.yaml: there is no option limits.x; there are limits.messageBytesMax'],
    [{ file: { grpcPort: 'eighty' } }, 'host.yaml: grpcPort must be a number; it is "eighty"'],
    [{ file: { repositories: 'models' } }, 'host.yaml: repositories must be a list of texts; it is "models"'],
    [{ file: ['a'] }, 'host.yaml must hold options by name'],
  ])('say what is wrong: %j', (sources, message) => {
    expect(() => hostOptionsOf({ ...nothing, fileName: 'host.yaml', ...sources })).toThrow(message);
  });

  it('are read from the file that --config names', async () => {
    const asked: string[] = [];
    const { program, host, interrupt } = pretendProgram({
      readYamlFile: (path) => {
        asked.push(path);
        return Promise.resolve({ repositories: ['from-file'], tls: { certificatePath: 'c', keyPath: 'k' } });
      },
    });
    interrupt();
    expect((await run(['serve', '--config', 'host.yaml', '--name', 'edge'], program)).code).toBe(0);
    expect(asked).toEqual(['host.yaml']);
    expect(host.started).toEqual([
      {
        repositories: ['from-file'],
        name: 'edge',
        tls: { certificatePath: 'c', keyPath: 'k', clientAuthorityPath: '' },
      },
    ]);
  });

  it('have an environment variable each, shown in the help', async () => {
    const { out } = await run(['serve', '--help']);
    const flat = out.replace(/\s+/g, ' ');
    for (const setting of hostSettings) {
      expect(flat).toContain(`--${setting.flag}`);
      expect(flat).toContain(`[${environmentName(setting)}]`);
    }
  });
});
