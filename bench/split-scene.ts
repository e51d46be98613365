/** What the parts of the splitting benchmark share: where models lie, a host that ends when a part is late. */
import { join } from 'node:path';
import { packageRoot } from '#compose/package-root.js';
import { SplitHost, type BenchDevice } from './split-host.js';

export const modelsFolder = join(packageRoot, '.cache/bench-models');
export const cpu = (index: number, threads: number): BenchDevice => ({ id: `cpu:${index}`, provider: 'cpu', threads });

export interface Scene {
  readonly quick: boolean;
  /** A repository of models that are made here. */
  readonly repository: string;
  readonly notes: string[];
  /** Aborted when the part is late. */
  readonly late: AbortSignal;
}

export async function withHost<T>(
  { repository, late }: Pick<Scene, 'repository' | 'late'>,
  devices: readonly BenchDevice[],
  use: (host: SplitHost) => Promise<T>,
): Promise<T> {
  late.throwIfAborted();
  const host = await SplitHost.start(repository, devices);
  const end = (): void => void host.close();
  late.addEventListener('abort', end, { once: true });
  try {
    return await use(host);
  } finally {
    late.removeEventListener('abort', end);
    await host.close();
  }
}

/** Milliseconds. */
export async function timed(work: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await work();
  return performance.now() - startMs;
}
