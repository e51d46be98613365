/** A load job as text, for another process: bodies as base64, the rest as JSON. Written and read by the same version. */
import { intarsiaError, messageOf } from '#core/errors.js';
import type { LoadJob } from './load-job.js';

/** A job with the address where the process asks for statistics; empty for none. */
export interface LoadJobFile {
  readonly job: LoadJob;
  /** `host:port` of the gRPC endpoint that answers ModelStatistics. */
  readonly statisticsEndpoint: string;
}

export function writeLoadJob(file: LoadJobFile): string {
  const bodies = file.job.target.bodies.map((body) => Buffer.from(body).toString('base64'));
  return JSON.stringify({ ...file, job: { ...file.job, target: { ...file.job.target, bodies } } });
}

/** @throws CONFIG_INVALID when the text is not what `writeLoadJob` writes. */
export function readLoadJob(text: string): LoadJobFile {
  try {
    const { job, statisticsEndpoint } = JSON.parse(text) as {
      job: Omit<LoadJob, 'target'> & { target: Omit<LoadJob['target'], 'bodies'> & { bodies: string[] } };
      statisticsEndpoint: string;
    };
    const bodies = job.target.bodies.map((body) => new Uint8Array(Buffer.from(body, 'base64')));
    return { job: { ...job, target: { ...job.target, bodies } }, statisticsEndpoint };
  } catch (error) {
    throw intarsiaError('CONFIG_INVALID', `the load job cannot be read: ${messageOf(error)}`, {}, error);
  }
}
