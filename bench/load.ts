/** Load from a process of its own, and what a benchmark wants to know of it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openGrpcLoad } from '#adapters/grpc/load-channel.js';
import { writeLoadJob } from '#cli/load/load-job-file.js';
import type { Arrivals } from '#cli/load/load-plan.js';
import type { LoadReport } from '#cli/load/load-report.js';
import { requestBody } from '#cli/load/request-bodies.js';
import type { Tensor } from '#core/tensor.js';
import type { LoadProtocol, LoadTarget } from '#ports/load-transport.js';
import { runChild } from './child.js';

export interface BenchLoad {
  readonly protocol: LoadProtocol;
  readonly port: number;
  readonly model: string;
  readonly input: Tensor;
  readonly arrivals: Arrivals;
  readonly seconds: number;
  readonly warmUpSeconds: number;
  readonly connections?: number;
  /** Ends after so many requests, at the latest after `seconds`. */
  readonly requests?: number;
  /** Deadline of each request, ms; none by default. */
  readonly timeoutMs?: number;
  /** Instead of the protocol's own path, headers and body: for servers that speak something simpler. */
  readonly raw?: { readonly path: string };
}

/** Runs the load and gives back its report. @throws when a request failed: a figure with failures is none. */
export async function load(options: BenchLoad): Promise<LoadReport> {
  const folder = mkdtempSync(join(tmpdir(), 'intarsia-load-'));
  try {
    const job = join(folder, 'job.json');
    writeFileSync(
      job,
      writeLoadJob({
        statisticsEndpoint: '',
        job: {
          plan: {
            arrivals: options.arrivals,
            warmUpMs: options.warmUpSeconds * 1000,
            windowMs: options.seconds * 1000,
            receiptEvery: 0,
            ...(options.requests === undefined ? {} : { requestsMax: options.requests }),
          },
          target: targetOf(options),
          itemsPerRequest: options.input.shape[0] ?? 1,
        },
      }),
    );
    const report = (await runChild('src/load-main.js', ['--job', job])) as unknown as LoadReport;
    if (report.failed > 0) {
      throw new Error(`${options.protocol} load on ${options.model}: ${JSON.stringify(report.errors)}`);
    }
    return report;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Bytes of one answer to this request, so that an echo can answer with as many. */
export async function answerBytes(options: BenchLoad): Promise<number> {
  const transport = openGrpcLoad(targetOf({ ...options, protocol: 'grpc' }));
  try {
    await transport.open();
    return await new Promise((resolve, reject) => {
      transport.send(0, true, (code, answer) => {
        if (code === '' && answer !== undefined) resolve(answer.byteLength);
        else reject(new Error(`the first request was answered with ${code}`));
      });
    });
  } finally {
    transport.close();
  }
}

function targetOf(options: BenchLoad): LoadTarget {
  const { protocol, raw, input } = options;
  const body =
    raw === undefined
      ? requestBody(protocol, { name: options.model, version: '' }, [input])
      : { path: raw.path, headers: { 'content-type': 'application/octet-stream' }, body: input.data };
  return {
    protocol,
    address: `127.0.0.1:${options.port}`,
    tls: false,
    path: body.path,
    headers: body.headers,
    bodies: [body.body],
    connections: options.connections ?? (protocol.startsWith('rest') ? concurrencyOf(options.arrivals) : 1),
    timeoutMs: options.timeoutMs ?? 0,
  };
}

function concurrencyOf(arrivals: Arrivals): number {
  return arrivals.kind === 'closed' ? arrivals.concurrency : 64;
}
