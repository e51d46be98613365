/**
 * A grid on one machine, for `intarsia up`: an embedded store and several hosts, each a real process, kept running. What
 * ends by itself is started again; what is killed is missed by nobody, because the other hosts serve on.
 */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SupervisedProcess } from '#adapters/process/supervised-process.js';
import type { LocalGrid, LocalGridOptions, LocalHost } from '#cli/program.js';
import type { Clock } from '#ports/clock.js';
import { packageRoot } from './package-root.js';

const storePortOffset = 4;
const linkPortOffset = 3;
/** Beside the drain of the host itself. */
const stopGraceMs = 40_000;

/** @throws UNAVAILABLE when a process ends before it is ready, with its last words. */
export async function startLocalGrid(options: LocalGridOptions, clock: Clock): Promise<LocalGrid> {
  const isTemporary = options.dataPath === '';
  const dataPath = isTemporary ? await mkdtemp(join(tmpdir(), 'intarsia-up-')) : options.dataPath;
  const main = join(packageRoot, 'bin/intarsia.mjs');
  const processes: SupervisedProcess[] = [];
  const hosts: LocalHost[] = [];

  const supervise = (
    name: string,
    args: readonly string[],
    onReady: (document: unknown) => void,
  ): SupervisedProcess => {
    const supervised = new SupervisedProcess({
      name,
      args: () => [main, ...args, '--json'],
      env: process.env,
      clock,
      restarts: options.restarts,
      onLine: (line) => options.onLine(name, line),
      onReady,
      onEnd: (how, again) => options.onEnd(name, how, again),
    });
    processes.push(supervised);
    return supervised;
  };
  const stop = async (): Promise<void> => {
    const [store, ...others] = processes;
    await Promise.all(others.map((supervised) => supervised.stop(stopGraceMs)));
    await store?.stop(stopGraceMs);
    if (isTemporary) await rm(dataPath, { recursive: true, force: true });
  };

  try {
    const storeAddress = `127.0.0.1:${options.basePort + storePortOffset}`;
    const storePath = join(dataPath, 'store');
    await mkdir(storePath, { recursive: true });
    const store = supervise('store', ['store', '--listen', storeAddress, '--data-dir', storePath], () => {});
    await store.start();
    for (let index = 0; index < options.hosts; index += 1) {
      const name = `host-${index + 1}`;
      const http = options.basePort + index * options.portStep;
      const args = [
        ['--name', name],
        ['--http-port', String(http)],
        ['--grpc-port', String(http + 1)],
        ['--metrics-port', String(http + 2)],
        ['--link-port', String(http + linkPortOffset)],
        ['--join', storeAddress],
        ['--data-dir', join(dataPath, name)],
        ['--log-level', options.logLevel],
        ['--log-format', options.logFormat],
        ...options.repositories.map((path) => ['--repository', path]),
        ...options.placements.map(({ model, devices }) => ['--place', `${model}=${devices.join(',')}`]),
      ].flat();
      const host = supervise(name, ['serve', ...args, ...options.hostArgs], () => options.onReady(name));
      await host.start();
      hosts.push({
        name,
        grpc: `127.0.0.1:${http + 1}`,
        http: `http://127.0.0.1:${http}`,
        metrics: `http://127.0.0.1:${http + 2}/metrics`,
        pid: () => host.pid,
      });
    }
    return { store: { address: storeAddress, pid: () => store.pid }, hosts, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
