/**
 * `npm run bench -- <name> [--json] [--quick | --full] [--only PART,…]`: runs one benchmark, or `all`, and prints its
 * report.
 * Exit code 0 when it ran, whatever it found; 1 when it failed; 2 when the command line is wrong.
 */
import { parseArgs } from 'node:util';
import { asIntarsiaError } from '#core/errors.js';
import { printReport, type Bench } from './report.js';

interface BenchEntry {
  readonly about: string;
  readonly load: () => Promise<{ readonly run: Bench }>;
}

const benches: Readonly<Record<string, BenchEntry>> = {
  actors: { about: 'tell and ask against nact and a bare array', load: () => import('./actors.js') },
  controller: {
    about: 'one reconciliation of 10,000 copies on 1,000 hosts',
    load: () => import('./controller.js'),
  },
  failover: {
    about: 'what clients notice when a host, the controller or the store of a grid fails',
    load: () => import('./failover.js'),
  },
  isolation: {
    about: 'an executor process against a thread of the host',
    load: () => import('./isolation.js'),
  },
  links: {
    about: 'links between hosts against a bare gRPC stream and bare TCP',
    load: () => import('./links.js'),
  },
  memory: {
    about: 'memory of an idle host above Node with ONNX Runtime, and after 100,000 requests',
    load: () => import('./memory-growth.js'),
  },
  plan: {
    about: 'the planner on 1,000 cut points, 16 devices and 8 batch sizes',
    load: () => import('./plan.js'),
  },
  policy: {
    about: 'how long a dispatch decision takes among 16, 32 and 128 candidates, and how good decisions are',
    load: () => import('./policy.js'),
  },
  remote: {
    about: 'a request to a copy on another host against one on the host that is asked',
    load: () => import('./remote.js'),
  },
  split: {
    about: 'a model in pieces and a batch over several devices, against the whole and bare ONNX Runtime loops',
    load: () => import('./split.js'),
  },
  serve: {
    about: 'the host against a bare echo, a bare fastify server and a bare ONNX Runtime loop',
    load: () => import('./serve.js'),
  },
};

export async function main(args: readonly string[]): Promise<number> {
  let options: { json: boolean; quick: boolean; full: boolean; help: boolean; only?: string };
  let names: string[];
  try {
    const parsed = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        json: { type: 'boolean', default: false },
        quick: { type: 'boolean', default: false },
        full: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
        only: { type: 'string' },
      },
    });
    options = parsed.values;
    names = parsed.positionals;
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n${usage()}`);
    return 2;
  }
  if (options.help) {
    process.stdout.write(usage());
    return 0;
  }
  const unknown = names.find((name) => name !== 'all' && !Object.hasOwn(benches, name));
  if (names.length === 0 || unknown !== undefined) {
    process.stderr.write(`${unknown === undefined ? 'no benchmark named' : `no benchmark ${unknown}`}\n${usage()}`);
    return 2;
  }
  for (const [name, bench] of Object.entries(benches)) {
    if (!names.includes(name) && !names.includes('all')) continue;
    const { run } = await bench.load();
    const { quick, full, only } = options;
    const chosen = only === undefined ? {} : { only: only.split(',') };
    try {
      printReport(await run({ quick, full, ...chosen }), { json: options.json });
    } catch (error) {
      const { code, message } = asIntarsiaError(error);
      if (code !== 'INVALID_ARGUMENT') throw error;
      process.stderr.write(`${message}\n`);
      return 2;
    }
  }
  return 0;
}

function usage(): string {
  const rows = Object.entries(benches).map(([name, { about }]) => `  ${name.padEnd(12)} ${about}`);
  return [
    'usage: npm run bench -- <name>... [--json] [--quick | --full] [--only PART,…]',
    '  all          every one of these',
    ...rows,
    '',
  ].join('\n');
}
