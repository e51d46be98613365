/**
 * The load generator as a process of its own: `node load-main.js --job FILE` runs the job and prints its report as one line
 * of JSON. Benchmarks use it, so that the generator's work is not the measured process's. Knows what it needs and no server.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { openGrpcLoad } from '#adapters/grpc/load-channel.js';
import { openRestLoad } from '#adapters/http/load-rest.js';
import { NodeClock } from '#adapters/node/clock.js';
import { readLoadJob } from '#cli/load/load-job-file.js';
import { runLoadJob } from '#cli/load/load-job.js';
import { openClientLoad } from '#cli/load/client-load.js';
import { connect } from '#client/index.js';
import { messageOf } from '#core/errors.js';
import type { LoadTarget, LoadTransport } from '#ports/load-transport.js';

/** The transport of a target's protocol. */
export function openLoadTransport(target: LoadTarget): LoadTransport {
  if (target.protocol === 'client') return openClientLoad(target, connect);
  return target.protocol === 'grpc' || target.protocol === 'grpc-stream' ? openGrpcLoad(target) : openRestLoad(target);
}

/** Microseconds of processor time that this process has used. */
export function processCpuUs(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { job: { type: 'string' } } });
  if (values.job === undefined) throw new Error('--job FILE is needed');
  const { job, statisticsEndpoint } = readLoadJob(readFileSync(values.job, 'utf8'));
  const client = statisticsEndpoint === '' ? undefined : connect({ endpoints: statisticsEndpoint });
  try {
    const report = await runLoadJob(job, {
      clock: new NodeClock(),
      openTransport: openLoadTransport,
      cpuUs: processCpuUs,
      ...(client === undefined ? {} : { client }),
    });
    process.stdout.write(`${JSON.stringify(report)}\n`);
  } finally {
    client?.close();
  }
}

if (process.argv[1] === import.meta.filename) {
  main().catch((error: unknown) => {
    process.stderr.write(`${messageOf(error)}\n`);
    process.exitCode = 1;
  });
}
