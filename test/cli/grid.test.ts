import { afterEach, describe, expect, it } from 'vitest';
import { startGrpcServer } from '#adapters/grpc/server.js';
import { connect } from '#client/index.js';
import { intarsiaError } from '#core/errors.js';
import { artifactDigest, hostId } from '#core/ids.js';
import { splitIdOf } from '#core/split/split-spec.js';
import { silentLog } from '#ports/log.js';
import { PretendGate } from '../server/pretend-gate.js';
import { keys, PretendGrid } from '../server/pretend-grid.js';
import { PretendHost } from '../server/pretend-host.js';
import { pretendProgram, run as runWith, type Said } from './pretend-program.js';

const opened: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of opened.splice(0)) await close();
});

/** A host whose gRPC port has the real service of the grid, over a pretended store. */
async function serve(
  grid: PretendGrid | undefined,
): Promise<{ endpoint: string; run: (words: string, file?: unknown) => Promise<Said> }> {
  const server = await startGrpcServer({
    ...new PretendHost().serverOptions(),
    log: silentLog,
    ...(grid === undefined ? {} : { grid: grid.desk }),
  });
  opened.push(() => server.stop(0));
  const endpoint = `127.0.0.1:${server.port}`;
  let content: unknown;
  const { program } = pretendProgram({
    readYamlFile: (path) =>
      content === undefined
        ? Promise.reject(intarsiaError('CONFIG_INVALID', `cannot read ${path}: ENOENT`))
        : Promise.resolve(typeof content === 'function' ? (content as (path: string) => unknown)(path) : content),
  });
  /** `file`: what every file holds; a function gives it by path. */
  const run = (words: string, file?: unknown): Promise<Said> => {
    content = file;
    return runWith([...words.split(' '), '--endpoint', endpoint], program);
  };
  return { endpoint, run };
}

const digits = { name: 'd', model: 'm', version: 1, replicas: 1 };

describe('intarsia deploy', () => {
  it('applies a file, prints what changes, and prints JSON', async () => {
    const grid = new PretendGrid();
    await grid.publish('m');
    const { run } = await serve(grid);
    const said = await run('deploy -f d.yaml', digits);
    expect(said).toMatchObject({ code: 0, err: '' });
    expect(said.out).toContain('+ deployment d\n');
    expect(said.out).toContain('d is applied');
    expect(await grid.read(keys.deployment('d'))).toMatchObject({ replicas: 1 });
    const list = { deployments: [digits, { ...digits, name: 'e', model: 'm' }] };
    const json = await run('deploy -f d.yaml --json --dry-run', list);
    const outcomes = JSON.parse(json.out) as readonly { readonly name: string; readonly applied: boolean }[];
    expect(outcomes.map(({ name, applied }) => [name, applied])).toEqual([
      ['d', false],
      ['e', false],
    ]);
  });

  it('with --dry-run prints what would change and whether it would be refused, and changes nothing', async () => {
    const grid = new PretendGrid();
    await grid.publish('m');
    const { run } = await serve(grid);
    const said = await run('deploy -f d.yaml --dry-run', [digits]);
    expect(said.code).toBe(0);
    expect(said.out).toContain('+ deployment d\n');
    expect(said.out).toContain('d would be applied');
    const tooMany = await run('deploy -f d.yaml --dry-run', { ...digits, replicas: 9 });
    expect(tooMany.code).toBe(1);
    expect(tooMany.out).toContain('would be refused: 7 copies of m/1 cannot be placed now: a: cpu:0');
    expect(await grid.read(keys.deployment('d'))).toBeUndefined();
  });

  it('refuses what can never fit with the reason of every host, and exit code 1', async () => {
    const grid = new PretendGrid();
    await grid.publish('m');
    const { run } = await serve(grid);
    const said = await run('deploy -f d.yaml', { ...digits, constraints: { zones: ['west'] } });
    expect(said.code).toBe(1);
    expect(said.out).toMatch(/refused: .*a: .*zone.*; b: .*zone.*east/);
    expect(await grid.read(keys.deployment('d'))).toBeUndefined();
  });

  it('names the file and the path of a mistake, with exit code 2 and nothing asked of the grid', async () => {
    const { run } = await serve(new PretendGrid());
    const said = await run('deploy -f d.yaml', { ...digits, replicas: 1.5 });
    expect(said.code).toBe(2);
    expect(said.err).toMatch(/error: d\.yaml: replicas: expected .*; found 1\.5/);
    const field = await run('deploy -f d.yaml', [digits, { ...digits, name: 'e', constraints: { provider: ['cpu'] } }]);
    expect(field.err).toContain('d.yaml: deployments[1].constraints.provider: expected no such field');
    expect((await run('deploy -f d.yaml', [])).code).toBe(2);
    expect((await run('deploy -f d.yaml')).err).toContain('cannot read d.yaml: ENOENT');
    expect((await run('deploy')).code).toBe(2);
  });
});

describe('intarsia undeploy', () => {
  it('takes a deployment back, and says when there is none', async () => {
    const grid = new PretendGrid();
    await grid.publish('m');
    const { run } = await serve(grid);
    await run('deploy -f d.yaml', digits);
    expect(await run('undeploy d')).toMatchObject({ code: 0, out: 'd: 0 replicas are being unloaded\n' });
    expect(await grid.read(keys.deployment('d'))).toBeUndefined();
    expect(await run('undeploy d')).toMatchObject({ code: 1, err: 'error: there is no deployment "d"\n' });
  });
});

describe('intarsia cordon, uncordon, drain', () => {
  it('order a host about and say how it stands', async () => {
    const grid = new PretendGrid();
    const { run } = await serve(grid);
    expect(await run('cordon b')).toMatchObject({ code: 0, out: 'b: cordoned\n' });
    expect(await run('drain b --within-ms 60000 --reason disk')).toMatchObject({ out: 'b: cordoned, draining\n' });
    expect(await grid.read(keys.order(hostId('b')))).toMatchObject({ draining: true, reason: 'disk' });
    expect(await run('uncordon b --json')).toMatchObject({ code: 0 });
    expect(await grid.read(keys.order(hostId('b')))).toBeUndefined();
  });

  it('name the hosts that are there when the one that is meant is not', async () => {
    const { run } = await serve(new PretendGrid());
    const said = await run('drain z');
    expect(said).toMatchObject({ code: 1, err: 'error: there is no host z in the grid; there are a, b\n' });
    expect((await run('drain b --within-ms soon')).code).toBe(2);
    // No time is not as much as it takes.
    expect(await run('drain b --within-ms 0')).toMatchObject({
      code: 2,
      err: expect.stringContaining('1 to 86400000') as string,
    });
  });
});

describe('intarsia events', () => {
  it('prints what happened, oldest first, from a number on', async () => {
    const grid = new PretendGrid();
    const { run } = await serve(grid);
    expect(await run('events')).toMatchObject({ code: 0, out: 'nothing has happened\n' });
    await grid.event(2, 'is suspected', 'warn');
    await grid.event(1, 'joined');
    expect((await run('events')).out.split('\n')).toEqual([
      '    1  2023-11-14T22:13:20.000Z  host b: joined',
      '    2  2023-11-14T22:13:20.000Z  host b: is suspected',
      '',
    ]);
    expect((await run('events --after 1')).out).not.toContain('joined');
    expect(JSON.parse((await run('events --json')).out)).toMatchObject([{ number: 1 }, { number: 2, level: 'warn' }]);
  });

  it('with --follow goes on until it is interrupted', async () => {
    const grid = new PretendGrid();
    const { endpoint } = await serve(grid);
    await grid.event(1, 'joined');
    const pretended = pretendProgram({
      connect: (options) => {
        const client = connect(options);
        const events = client.grid.events.bind(client.grid);
        client.grid.events = (request, onEvent, more) =>
          events(
            request,
            (event) => {
              onEvent(event);
              if (event.number === 1) void grid.event(2, 'left');
              else pretended.interrupt();
            },
            more,
          );
        return client;
      },
    });
    const said = await runWith(['events', '--follow', '--json', '--endpoint', endpoint], pretended.program);
    expect(said.code).toBe(0);
    const lines = said.out.trim().split('\n');
    expect(lines.map((line) => JSON.parse(line) as unknown)).toMatchObject([{ text: 'joined' }, { text: 'left' }]);
  });
});

describe('intarsia status in a grid', () => {
  it('shows hosts, deployments and what the store is', async () => {
    const grid = new PretendGrid();
    await grid.publish('m');
    const { run } = await serve(grid);
    await run('deploy -f d.yaml', digits);
    grid.setHost('b', { zone: 'east' }, { cordoned: true, state: 'suspected' });
    const { code, out } = await run('status');
    expect(code).toBe(0);
    expect(out).toMatch(/grid test, view \d+, no leader; store: pretended at nowhere/);
    expect(out).toMatch(/^b +host +suspected, cordoned +edge +east +cpu:0/m);
    expect(out).toMatch(/^d +m +1 +0\/1 +progressing +nobody has looked at it yet/m);
  });

  it('says that placement is frozen while the store is away, and shows the last view', async () => {
    const grid = new PretendGrid();
    const { run } = await serve(grid);
    grid.store.away();
    grid.tellView(true);
    const { code, out } = await run('status');
    expect(code).toBe(0);
    expect(out).toContain('pretended at nowhere cannot be reached: placement is frozen');
    expect(out).toContain('Deployments and replicas are in the store: they are shown when it is back.');
    expect(out).toMatch(/^a +host +up/m);
    expect(await run('cordon b')).toMatchObject({ code: 1 });
    expect(await run('events')).toMatchObject({ code: 1 });
  });

  it('of a host that serves alone is that host only; orders say how to make it part of a grid', async () => {
    const { run } = await serve(undefined);
    const status = await run('status');
    expect(status.code).toBe(0);
    expect(status.out).not.toContain('grid');
    for (const words of ['undeploy d', 'cordon b', 'drain b', 'uncordon b']) {
      const said = await run(words);
      expect(said.code, words).toBe(1);
      expect(said.err, words).toContain('this host serves alone: start it with --etcd, --join or --store-port');
    }
    expect((await run('events')).code).toBe(1);
  });
});

describe('intarsia deploy of a split', () => {
  const split = { ...digits, split: { stages: 2 } };

  it('has the grid make and compare it, applies it, and prints stages and verdict', async () => {
    const gate = new PretendGate();
    const grid = new PretendGrid(undefined, gate);
    await grid.publish('m');
    const { run } = await serve(grid);
    const said = await run('deploy -f d.yaml', split);
    expect(said).toMatchObject({ code: 0, err: '' });
    expect(said.out).toContain('    copy 0, stage 1 of 2: a/cpu:0 (cpu), 977 KiB\n');
    expect(said.out).toContain('    copy 0, stage 2 of 2: b/cpu:0 (cpu), 977 KiB\n');
    expect(said.out).toContain('    gate: equal within tolerance over 1 vector, largest error 2.50e-7 absolute');
    expect(said.out).toContain('d is applied');
    expect(await grid.read(keys.deployment('d'))).toMatchObject({ split: { cuts: [10], splitBatches: true } });
    const json = await run('deploy -f d.yaml --json', split);
    expect(JSON.parse(json.out)).toMatchObject([{ applied: true, verification: { verdict: 'equal', host: 'a' } }]);
    const status = await run('status');
    expect(status.out).toMatch(/^d +m +1 +0\/1 +progressing +equal within tolerance over 1 vector/m);
  });

  it('prints with --dry-run where stages would go, compares nothing and changes nothing', async () => {
    const gate = new PretendGate();
    const grid = new PretendGrid(undefined, gate);
    await grid.publish('m');
    const { run } = await serve(grid);
    const said = await run('deploy -f d.yaml --dry-run', split);
    expect(said.code).toBe(0);
    expect(said.out).toContain('    copy 0, stage 2 of 2: b/cpu:0 (cpu), 977 KiB\n');
    expect(said.out).toContain('d would be applied');
    expect(gate.verified).toEqual([]);
    expect(await grid.read(keys.deployment('d'))).toBeUndefined();
  });

  it('refuses what is out of tolerance with the numbers and exit code 1', async () => {
    const gate = new PretendGate();
    gate.findings = { verdict: 'different', reason: "output 'y' at 3 is 1, the reference 2", maxRelativeError: 0.5 };
    const grid = new PretendGrid(undefined, gate);
    await grid.publish('m');
    const { run } = await serve(grid);
    const said = await run('deploy -f d.yaml', split);
    expect(said.code).toBe(1);
    expect(said.out).toContain('refused: the pieces are not equal to the whole: different over 1 vector');
    expect(said.out).toContain("0.500 relative (0.00100 passes): output 'y' at 3 is 1, the reference 2");
    expect(await grid.read(keys.deployment('d'))).toBeUndefined();
  });

  it('takes the cuts of a plan file beside the deployment, and says what is wrong with one that splits nothing', async () => {
    const gate = new PretendGate();
    const grid = new PretendGrid(undefined, gate);
    await grid.publish('m');
    const { run } = await serve(grid);
    const digest = artifactDigest('a'.repeat(64));
    const id = splitIdOf({ digest, cuts: [7], compression: 'none' });
    const shards = [{ memoryBytes: 5 }, { memoryBytes: 6, constraints: { providers: ['cpu'] } }];
    const plan = { format: 1, split: { format: 1, id, digest, cuts: [7], shards, compression: 'none' } };
    const files = (path: string): unknown => {
      if (path.endsWith('/plans/p.json')) return plan;
      return path.endsWith('whole.json') ? { format: 1, reason: '' } : { ...digits, split: { plan: 'p.json' } };
    };
    const said = await run('deploy -f plans/d.yaml', files);
    expect(said).toMatchObject({ code: 0, err: '' });
    expect(gate.opened).toEqual([{ kind: 'cuts', cuts: [7], digest }]);
    expect(await grid.read(keys.deployment('d'))).toMatchObject({ split: { shards } });
    const whole = await run('deploy -f d.yaml', (path: string) =>
      path.endsWith('whole.json') ? files(path) : { ...digits, split: { plan: 'whole.json' } },
    );
    expect(whole.code).toBe(2);
    expect(whole.err).toContain(
      'd.yaml: split.plan: expected a plan that splits the model; found "not to split is better"',
    );
  });
});

describe('intarsia up', () => {
  it('starts the processes it is asked for, prints where they are, and stops them when interrupted', async () => {
    const started: unknown[] = [];
    let stops = 0;
    const pretended = pretendProgram({
      startLocalGrid: (options) => {
        started.push(options);
        options.onReady('host-1');
        options.onEnd('host-1', 'signal SIGKILL', 200);
        return Promise.resolve({
          store: { address: '127.0.0.1:9004', pid: () => 1 },
          hosts: [{ name: 'host-1', grpc: '127.0.0.1:9001', http: 'http://127.0.0.1:9000', metrics: '', pid: () => 2 }],
          stop: () => {
            stops += 1;
            return Promise.resolve();
          },
        });
      },
    });
    pretended.interrupt();
    const said = await runWith(
      ['up', '--hosts', '1', '--base-port', '9000', '--', '--gateways', '2'],
      pretended.program,
    );
    expect(said.code).toBe(0);
    expect(said.out).toMatch(/^host-1 +127\.0\.0\.1:9001 +http:\/\/127\.0\.0\.1:9000 +2$/m);
    expect(said.err).toContain('host-1 ended (signal SIGKILL); starting it again in 200 ms');
    expect(stops).toBe(1);
    expect(started).toMatchObject([
      { hosts: 1, basePort: 9000, restarts: true, logFormat: 'json', hostArgs: ['--gateways', '2'] },
    ]);
  });

  it('fails with the reason when a process does not start', async () => {
    const { program } = pretendProgram({
      startLocalGrid: () => Promise.reject(intarsiaError('UNAVAILABLE', 'store ended before it was ready: port taken')),
    });
    const said = await runWith(['up'], program);
    expect(said).toMatchObject({ code: 1, err: 'error: store ended before it was ready: port taken\n' });
  });

  it('refuses more hosts than it starts, and ports that there are not, before anything is started', async () => {
    const { program } = pretendProgram({
      startLocalGrid: () => Promise.reject(intarsiaError('INTERNAL', 'nothing should have been started')),
    });
    for (const [flag, value, range] of [
      ['--hosts', 'many', 'a whole number'],
      ['--hosts', '65', '1 to 64'],
      ['--hosts', '2.5', 'a whole number'],
      ['--base-port', '70000', '1 to 64895'],
    ] as const) {
      const said = await runWith(['up', flag, value], program);
      expect(said.code).toBe(2);
      expect(said.err).toContain(range);
    }
  });
});
