import { createServer } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { runProgram, startHostProcess, type HostFacts, type HostProcess } from './host-process.js';

const anyPorts = ['--http-port', '0', '--grpc-port', '0', '--metrics-port', '0'];

interface StartDocument extends HostFacts {
  readonly check: {
    readonly passed: boolean;
    readonly requests: number;
    readonly providers: readonly { readonly provider: string; readonly device: string; readonly emulated: boolean }[];
    readonly differenceRelative: number;
    readonly toleranceRelative: number;
  };
  readonly tryIt: string;
}

describe('intarsia start', () => {
  let host: HostProcess | undefined;
  afterEach(async () => {
    await host?.stop();
    host = undefined;
  });

  it('start --once ends with 0 and shows devices, models, endpoints, and how far two providers differ', async () => {
    const { code, stdout, stderr } = await runProgram(['start', '--once', ...anyPorts]);
    expect(code, stderr).toBe(0);
    expect(stdout).toMatch(/^cpu:0 +cpu .* ready$/m);
    expect(stdout).toMatch(/^digits +1 +READY +cpu:0, wasm:0$/m);
    expect(stdout).toMatch(/^gRPC \(Triton, KServe\) +127\.0\.0\.1:\d+$/m);
    expect(stdout).toMatch(/^passed: cpu and wasm agree on digits; largest difference \S+ absolute, \S+ relative/m);
    expect(stdout).toMatch(
      /^ {2}npx intarsia infer digits --input image=\S+ --classes 3 --endpoint 127\.0\.0\.1:\d+$/m,
    );
    expect(stdout).not.toContain('Press Ctrl-C');
    expect(stderr).toBe('');
  });

  it('start --once --json prints one document: two providers, real devices, at most 1e-4 apart', async () => {
    const { code, stdout, stderr } = await runProgram(['start', '--once', '--json', ...anyPorts]);
    expect(code, stderr).toBe(0);
    const { check, models } = JSON.parse(stdout) as StartDocument;
    expect(check.passed).toBe(true);
    expect(check.providers.map(({ provider, emulated }) => [provider, emulated])).toEqual([
      ['cpu', false],
      ['wasm', false],
    ]);
    expect(check.requests).toBeGreaterThanOrEqual(16);
    expect(check.toleranceRelative).toBe(1e-4);
    expect(check.differenceRelative).toBeLessThanOrEqual(check.toleranceRelative);
    expect(models.filter(({ state }) => state !== 'READY')).toEqual([]);
  });

  it('start keeps serving after its check until it is told to stop, and then ends with 0', async () => {
    host = await startHostProcess([], { command: 'start' });
    const answer = await fetch(`${host.http}/v2/health/ready`);
    expect(answer.status).toBe(200);
    const { code, signal } = await host.stop('SIGINT');
    expect({ code, signal }).toEqual({ code: 0, signal: null });
    host = undefined;
  });

  it('a check that does not pass ends with 1 and says why', async () => {
    const { code, stdout } = await runProgram(['start', '--once', '--place', 'digits=cpu', ...anyPorts]);
    expect(stdout).toMatch(/failed: .*one execution provider cannot be compared/);
    expect(code).toBe(1);
  });

  it.each(['http', 'grpc', 'metrics'])('a taken %s port is named in one line, with what to do', async (which) => {
    const other = createServer();
    const port = await new Promise<number>((resolve) => {
      other.listen(0, '127.0.0.1', () => resolve((other.address() as { port: number }).port));
    });
    try {
      const flags = anyPorts.map((flag, index) => (anyPorts[index - 1] === `--${which}-port` ? String(port) : flag));
      const { code, stderr } = await runProgram(['start', '--once', ...flags]);
      expect(stderr).toMatch(/^error: [^\n]*\n$/);
      expect(stderr).toContain(String(port));
      expect(stderr).toContain(`--${which}-port`);
      expect(code).toBe(1);
    } finally {
      await new Promise((resolve) => other.close(resolve));
    }
  });
});
