import { describe, expect, it } from 'vitest';
import { intarsiaError } from '#core/errors.js';
import { passedCheck, pretendProgram, run } from './pretend-program.js';

describe('the command line', () => {
  it('shows every command and examples in its help', async () => {
    const { code, out } = await run(['--help']);
    expect(code).toBe(0);
    for (const name of ['start', 'serve', 'devices', 'models', 'infer', 'bench', 'status', 'completion', 'version']) {
      expect(out).toMatch(new RegExp(`^  ${name}\\b`, 'm'));
    }
    expect(out).toContain('$ intarsia serve --repository models');
    expect(out).toContain('Exit codes: 0 done, 1 failed, 2');
  });

  it('prints its help and fails when nothing is asked', async () => {
    const { code, out, err } = await run([]);
    expect([code, out]).toEqual([2, '']);
    expect(err).toContain('Usage: intarsia');
  });

  it('suggests a command for a misspelt one, with exit code 2', async () => {
    const { code, err } = await run(['serv']);
    expect(code).toBe(2);
    expect(err).toContain("unknown command 'serv'");
    expect(err).toContain('Did you mean serve?');
  });

  it('suggests a flag for a misspelt one, with exit code 2', async () => {
    const { code, err } = await run(['serve', '--repositori', 'x']);
    expect(code).toBe(2);
    expect(err).toContain('Did you mean --repository?');
  });

  it('tells a failure in one line that says what to do, without a stack trace', async () => {
    const { program } = pretendProgram({
      discoverDevices: () => Promise.reject(intarsiaError('OUT_OF_MEMORY', 'model m needs\n 3 GiB more')),
    });
    const { code, out, err } = await run(['devices'], program);
    expect([code, out]).toEqual([1, '']);
    expect(err).toBe('error: model m needs 3 GiB more; unload another model, or choose another device\n');
  });

  it('shows the stack trace with --verbose, and says so for a failure nobody expected', async () => {
    const { program } = pretendProgram({ discoverDevices: () => Promise.reject(new Error('oh')) });
    expect((await run(['devices'], program)).err).toBe(
      'error: oh\n       run it again with --verbose for the details\n',
    );
    expect((await run(['devices', '--verbose'], program)).err).toMatch(/Error: oh\n +at /);
  });

  it('gives failures as JSON with --json', async () => {
    const { program } = pretendProgram({
      discoverDevices: () => Promise.reject(intarsiaError('CONFIG_INVALID', 'bad file', { file: 'x' })),
    });
    const { code, out } = await run(['devices', '--json'], program);
    expect(code).toBe(2);
    expect(JSON.parse(out)).toEqual({ error: { code: 'CONFIG_INVALID', message: 'bad file', details: { file: 'x' } } });
  });

  it('colours a terminal only, and not with NO_COLOR', async () => {
    const escape = '\u001b[';
    const check = { ...passedCheck, passed: false, reason: 'they differ' };
    const once = ['start', '--once'];
    expect((await run(once, pretendProgram({ check }).program, { tty: true })).out).toContain(escape);
    expect(
      (await run(once, pretendProgram({ check }).program, { tty: true, env: { NO_COLOR: '1' } })).out,
    ).not.toContain(escape);
    expect((await run(once, pretendProgram({ check }).program)).out).not.toContain(escape);
  });

  it('names its version and those of its parts', async () => {
    expect((await run(['--version'])).out).toBe('0.1.0\n');
    expect(JSON.parse((await run(['version', '--json'])).out)).toEqual({ intarsia: '0.1.0', node: '20.0.0' });
  });
});

describe('intarsia start', () => {
  it('serves the example models, prints what it found and the check, and exits with --once', async () => {
    const { program, host } = pretendProgram();
    const { code, out, err } = await run(['start', '--once'], program);
    expect(code).toBe(0);
    expect(host.started).toEqual([
      {
        repositories: ['examples/models'],
        placements: [{ model: 'digits', devices: ['cpu', 'wasm'] }],
        telemetry: { logLevel: 'warn' },
      },
    ]);
    expect(host.stops).toBe(1);
    expect(out).toMatch(/cpu:0 +cpu +Pretended CPU +cpu +8 GiB +ready/);
    expect(out).toMatch(/wasm:0 .* degraded: slow/);
    expect(out).toContain('not used: cuda: no NVIDIA driver; install one');
    expect(out).toMatch(/digits +1 +READY +cpu:0, wasm:0/);
    expect(out).toMatch(/broken +2 +UNAVAILABLE +corrupt model/);
    expect(out).toMatch(/gRPC \(Triton, KServe\) +127\.0\.0\.1:8001/);
    expect(out).toContain(
      'passed: cpu and wasm agree on digits; largest difference 2.4e-7 absolute, 3.1e-6 relative (at most 1.0e-4 relative)',
    );
    expect(out).toContain('npx intarsia infer digits --input image=examples/pictures/seven.png --classes 3\n');
    expect(err).toBe('warning: plain text on a public address\n');
  });

  it('exits with 1 when the check did not pass, and still stops the host', async () => {
    const { program, host } = pretendProgram({ check: { ...passedCheck, passed: false, reason: 'they differ' } });
    const { code, out } = await run(['start', '--once'], program);
    expect(code).toBe(1);
    expect(out).toContain('failed: they differ; largest difference');
    expect(host.stops).toBe(1);
  });

  it('keeps serving until it is interrupted', async () => {
    const { program, host, interrupt } = pretendProgram();
    const running = run(['start'], program);
    await Promise.resolve();
    expect(host.stops).toBe(0);
    interrupt();
    const { code, out } = await running;
    expect([code, host.stops]).toEqual([0, 1]);
    expect(out).toContain('Serving. Press Ctrl-C to stop.');
  });

  it('gives one JSON document with --json', async () => {
    const { program } = pretendProgram();
    const { code, out } = await run(['start', '--once', '--json'], program);
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({
      endpoints: { grpc: '127.0.0.1:8001' },
      devices: [{ device: { id: 'cpu:0' }, health: 'ready' }, {}],
      models: [{ name: 'digits', state: 'READY' }, {}],
      check: { passed: true, differenceRelative: 3.1e-6 },
      tryIt: 'npx intarsia infer digits --input image=examples/pictures/seven.png --classes 3',
    });
  });

  it('stops the host when the check itself breaks', async () => {
    const { program, host } = pretendProgram();
    const broken = {
      ...program,
      startHost: async (options: never) => ({
        ...(await program.startHost(options)),
        selfCheck: () => Promise.reject(new Error('port gone')),
      }),
    };
    expect((await run(['start', '--once'], broken)).code).toBe(1);
    expect(host.stops).toBe(1);
  });
});

describe('intarsia serve', () => {
  it('hands over what flags say and serves until it is interrupted', async () => {
    const { program, host, interrupt } = pretendProgram();
    interrupt();
    const { code } = await run(
      [
        'serve',
        '--repository',
        'a',
        '--repository',
        'b',
        '--grpc-port',
        '0',
        '--queue-bytes-max',
        '64MiB',
        '--no-receipts',
      ],
      program,
    );
    expect(code).toBe(0);
    expect(host.started).toEqual([
      {
        repositories: ['a', 'b'],
        grpcPort: 0,
        limits: { queueBytesMax: 64 * 1024 * 1024 },
        telemetry: { receipts: false },
      },
    ]);
    expect(host.stops).toBe(1);
  });

  it('asks for a repository', async () => {
    const { code, err } = await run(['serve']);
    expect(code).toBe(2);
    expect(err).toContain('give --repository DIR');
  });
});

describe('intarsia devices', () => {
  it('lists what is usable, and what is not and why', async () => {
    const { code, out } = await run(['devices']);
    expect(code).toBe(0);
    expect(out).toMatch(/cpu:0 +cpu +Pretended CPU/);
    expect(out).toMatch(/webgpu +no adapter +install a Vulkan driver/);
  });

  it('gives the whole report as JSON', async () => {
    const { out } = await run(['devices', '--json']);
    expect(JSON.parse(out)).toMatchObject({ devices: [{ id: 'cpu:0' }], unusable: [{ name: 'webgpu' }] });
  });
});
