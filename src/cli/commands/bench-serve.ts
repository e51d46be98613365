/** `intarsia bench serve`: load on a host from this process, and what came of it. */
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { Option, type Command } from 'commander';
import { intarsiaError, messageOf } from '#core/errors.js';
import type { Shape, Tensor } from '#core/tensor.js';
import type { CallStatistics, InferenceClient, ModelMetadata } from '#client/index.js';
import { loadProtocols, type LoadProtocol, type LoadTarget } from '#ports/load-transport.js';
import {
  addConnectionFlags,
  clientOptionsOf,
  collectPairs,
  connectBy,
  endpointsOf,
  parseShape,
  positiveNumber,
  wholeNumber,
  type ConnectionFlags,
} from '../connection-flags.js';
import { exitCodes } from '../failure-line.js';
import { readInputTensor } from '../infer-values.js';
import { parseTrace } from '../load/arrivals.js';
import { openClientLoad, type ClientLoad } from '../load/client-load.js';
import { runLoadJob, type LoadJob } from '../load/load-job.js';
import type { Arrivals } from '../load/load-plan.js';
import { printLoadReport } from '../load/load-table.js';
import { randomInputs } from '../load/random-inputs.js';
import { requestBody } from '../load/request-bodies.js';
import { startProgress } from '../progress.js';
import type { Program } from '../program.js';
import type { Output } from '../terminal.js';
import { act, examples, type CommandContext } from './command-context.js';

interface BenchFlags extends ConnectionFlags {
  readonly model: string;
  readonly modelVersion?: string;
  readonly protocol: LoadProtocol;
  readonly url: string;
  readonly concurrency: number;
  readonly rate?: number;
  readonly trace?: string;
  readonly traceUnit: 'ms' | 's';
  readonly seconds: number;
  readonly warmUpSeconds: number;
  readonly requests?: number;
  readonly deadlineMs?: number;
  readonly batch: number;
  readonly shape?: ReadonlyMap<string, string>;
  readonly input?: ReadonlyMap<string, string>;
  readonly bodies: number;
  readonly connections?: number;
  readonly inFlightMax: number;
  readonly receiptEvery: number;
  readonly seed: string;
}

export function addBenchCommand(parent: Command, context: CommandContext): void {
  const bench = parent.command('bench').description('measure');
  const command = addConnectionFlags(
    bench
      .command('serve')
      .description('put load on a host and report throughput, latency, goodput, and the time in queue and computation')
      .requiredOption('--model <name>', 'model to ask')
      .option('--model-version <version>', 'version of the model (default: the one that answers)')
      .addOption(
        new Option(
          '--protocol <protocol>',
          'road to the host; client: as programs ask, with retries and every --endpoint',
        )
          .choices([...loadProtocols])
          .default('grpc'),
      )
      .option('--url <url>', 'REST endpoint, for the rest-… protocols', 'http://127.0.0.1:8000')
      .option('--concurrency <n>', 'closed loop: requests in flight', wholeNumber, 16)
      .option(
        '--rate <n>',
        'open loop: requests per second, Poisson; latency counts from the intended moment',
        positiveNumber,
      )
      .option('--trace <file>', 'open loop: arrivals from the first column of a CSV file')
      .addOption(new Option('--trace-unit <unit>', 'unit of that column').choices(['ms', 's']).default('ms'))
      .option('--seconds <s>', 'length of the window that counts', positiveNumber, 10)
      .option('--warm-up-seconds <s>', 'load before it that does not count', Number, 1)
      .option('--requests <n>', 'end after this many requests', wholeNumber)
      .option('--deadline-ms <ms>', 'report goodput: answers within this time; it is told to the host', positiveNumber)
      .option('--batch <n>', 'items of one request, where the model batches', wholeNumber, 1)
      .option('--shape <name=sizes>', 'shape of an input, such as tokens=1,128; repeat it', collectPairs)
      .option('--input <name=value>', 'an input as for `infer`; others are random; repeat it', collectPairs)
      .option('--bodies <n>', 'different random requests, sent in turn', wholeNumber, 16)
      .option('--connections <n>', 'connections (default: 1 for gRPC, one per request in flight for REST)', wholeNumber)
      .option(
        '--in-flight-max <n>',
        'open loop: requests in flight at most; more count as NOT_SENT',
        wholeNumber,
        10_000,
      )
      .option('--receipt-every <n>', 'read the receipt of one answer in n; 0 for none', wholeNumber, 16)
      .option('--seed <seed>', 'seed of inputs and arrivals', '1')
      .addHelpText(
        'after',
        examples(
          'intarsia bench serve --model digits --concurrency 64',
          'intarsia bench serve --model digits --rate 500 --deadline-ms 20 --seconds 30',
          'intarsia bench serve --model digits --trace arrivals.csv --trace-unit s --json',
          'intarsia bench serve --model digits --protocol rest-binary --url http://127.0.0.1:8000',
          'intarsia bench serve --model digits --protocol client --endpoint 127.0.0.1:8001,127.0.0.1:8011',
        ),
      ),
  );
  command.action((flags: BenchFlags) => act(context, command, (output) => benchServe(flags, context.program, output)));
}

async function benchServe(flags: BenchFlags, program: Program, output: Output): Promise<number> {
  const client = connectBy(flags, program);
  try {
    const job = await jobOf(flags, client, program);
    const progress = startProgress(output, `load on ${flags.model}`);
    const stop = new AbortController();
    void program.untilInterrupted().then(() => stop.abort());
    let clientLoad: ClientLoad | undefined;
    try {
      const report = await runLoadJob(job, {
        clock: program.clock,
        openTransport: (target) => {
          if (target.protocol !== 'client') return program.openLoadTransport(target);
          clientLoad = openClientLoad(target, (options) => program.connect(options), clientOptionsOf(flags));
          return clientLoad;
        },
        client,
        cpuUs: () => program.cpuUs(),
        onProgress: (share, requests) => progress.update(share, `${requests} requests`),
        signal: stop.signal,
      });
      progress.stop();
      output.result({
        model: flags.model,
        protocol: flags.protocol,
        endpoint: job.target.address,
        seed: flags.seed,
        ...report,
        ...(clientLoad === undefined ? {} : { client: clientLoad.statistics }),
      });
      printLoadReport(report, output);
      if (clientLoad !== undefined) printAttempts(clientLoad.statistics, output);
      return report.succeeded > 0 && report.failed === 0 ? exitCodes.ok : exitCodes.failed;
    } finally {
      progress.stop();
    }
  } finally {
    client.close();
  }
}

function printAttempts({ calls, attempts, retries, overdue, retriesRefused }: CallStatistics, output: Output): void {
  output.line();
  output.line(
    `the client made ${attempts} attempts for ${calls} calls, warm-up included: ${retries} more, ${overdue} of them beside one that took too long; ${retriesRefused} were not allowed by its budget`,
  );
}

async function jobOf(flags: BenchFlags, client: InferenceClient, program: Program): Promise<LoadJob> {
  const version = flags.modelVersion ?? '';
  const metadata = await client.modelMetadata(flags.model, version === '' ? {} : { version });
  const arrivals = await arrivalsOf(flags);
  const requests = await requestsOf(flags, metadata, program);
  const bodies = requests.map((tensors) => requestBody(flags.protocol, { name: flags.model, version }, tensors));
  const [first] = bodies;
  if (first === undefined) throw intarsiaError('CONFIG_INVALID', '--bodies must be at least 1; it is 0');
  return {
    plan: {
      arrivals,
      warmUpMs: flags.warmUpSeconds * 1000,
      windowMs: flags.seconds * 1000,
      requestsMax: flags.requests ?? Infinity,
      deadlineMs: flags.deadlineMs ?? 0,
      inFlightMax: flags.inFlightMax,
      drainMsMax: flags.timeoutMs,
      receiptEvery: flags.receiptEvery,
      seed: flags.seed,
    },
    target: {
      ...addressOf(flags),
      protocol: flags.protocol,
      path: first.path,
      headers: {
        ...first.headers,
        // The client has it from its options, and looks where it may go.
        ...(flags.token === undefined || flags.protocol === 'client' ? {} : { authorization: `Bearer ${flags.token}` }),
      },
      bodies: bodies.map(({ body }) => body),
      connections: flags.connections ?? connectionsFor(flags),
      timeoutMs: flags.deadlineMs ?? 0,
    },
    itemsPerRequest: itemsOf(metadata, requests[0] ?? []),
    model: { name: flags.model, version },
  };
}

async function arrivalsOf({ rate, trace, traceUnit, concurrency }: BenchFlags): Promise<Arrivals> {
  if (rate !== undefined && trace !== undefined) {
    throw intarsiaError('CONFIG_INVALID', '--rate and --trace both say when requests arrive: give one of them');
  }
  if (rate !== undefined) return { kind: 'poisson', ratePerSecond: rate };
  if (trace === undefined) return { kind: 'closed', concurrency };
  const text = await readFile(trace, 'utf8').catch((error: unknown) => {
    throw intarsiaError('CONFIG_INVALID', `--trace: ${trace} cannot be read: ${messageOf(error)}`, { path: trace });
  });
  return { kind: 'trace', name: basename(trace), arrivalsMs: parseTrace(trace, text, traceUnit) };
}

async function requestsOf(
  flags: BenchFlags,
  metadata: ModelMetadata,
  program: Program,
): Promise<readonly (readonly Tensor[])[]> {
  const shapes = new Map<string, Shape>();
  for (const [name, text] of flags.shape ?? []) shapes.set(name, parseShape(`--shape ${name}`, text));
  const given = new Map<string, Tensor>();
  for (const [name, text] of flags.input ?? []) {
    const spec = metadata.inputs.find((input) => input.name === name);
    if (spec === undefined) {
      const names = metadata.inputs.map((input) => input.name).join(', ');
      throw intarsiaError('INVALID_ARGUMENT', `model '${metadata.name}' has no input '${name}'; it has ${names}`);
    }
    given.set(name, await readInputTensor(spec, text, { program, shape: shapes.get(name) }));
    shapes.delete(name);
  }
  const open = metadata.inputs.filter((spec) => !given.has(spec.name));
  const count = open.length === 0 ? Math.min(1, flags.bodies) : flags.bodies;
  return Array.from({ length: count }, (_, index) => {
    const drawn = randomInputs(open, { seed: `${flags.seed} ${index}`, batch: flags.batch, shapes });
    return metadata.inputs
      .map((spec) => given.get(spec.name) ?? drawn.find(({ name }) => name === spec.name))
      .filter(isTensor);
  });
}

function isTensor(tensor: Tensor | undefined): tensor is Tensor {
  return tensor !== undefined;
}

function addressOf(flags: BenchFlags): Pick<LoadTarget, 'address' | 'tls'> {
  if (flags.protocol === 'rest-json' || flags.protocol === 'rest-binary') {
    let url: URL;
    try {
      url = new URL(flags.url);
    } catch {
      throw intarsiaError('CONFIG_INVALID', `--url must be written http://host:port; it is ${flags.url}`);
    }
    const tls = url.protocol === 'https:';
    return { address: url.host.includes(':') ? url.host : `${url.host}:${tls ? 443 : 80}`, tls };
  }
  if (flags.protocol === 'client')
    return { address: endpointsOf(flags).join(','), tls: clientOptionsOf(flags).tls !== undefined };
  const [endpoint, ...others] = endpointsOf(flags);
  if (endpoint === undefined || others.length > 0) {
    throw intarsiaError(
      'CONFIG_INVALID',
      'load goes to one endpoint: give --endpoint once, or --protocol client, which takes several',
    );
  }
  const tls = clientOptionsOf(flags).tls !== undefined || /^(grpcs|https):/.test(endpoint);
  return { address: endpoint.replace(/^[a-z]+:\/\//, '').replace(/\/$/, ''), tls };
}

/** HTTP/1.1 carries one request a connection at a time; HTTP/2 carries them all. */
function connectionsFor({ protocol, rate, trace, concurrency }: BenchFlags): number {
  if (protocol === 'grpc' || protocol === 'grpc-stream' || protocol === 'client') return 1;
  return rate === undefined && trace === undefined ? Math.min(concurrency, 1024) : 64;
}

/** Items where the first dimension of the model varies, else 1. */
function itemsOf(metadata: ModelMetadata, tensors: readonly Tensor[]): number {
  const [spec] = metadata.inputs;
  const tensor = tensors.find(({ name }) => name === spec?.name);
  return spec?.shape[0] === -1 ? (tensor?.shape[0] ?? 1) : 1;
}
