import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { connect, type InferenceClient } from '#client/index.js';
import { affine, writeInto } from './faulty-models.js';
import { startHostProcess } from './host-process.js';
import { Traffic, until } from './running-host.js';
import { temporaryFolder } from './temporary-folder.js';

const folder = temporaryFolder();

/** A host with a model of version 1, y = 2x + 1, asked all the time by clients that never retry. */
class ReloadWorld {
  readonly repository: string;
  readonly client: InferenceClient;
  readonly traffic: Traffic;
  /** Factors seen since the last look, with the version that answered. */
  #seen = new Set<string>();

  constructor(repository: string, grpc: string) {
    this.repository = repository;
    this.client = connect({ endpoints: grpc, attemptsMax: 1 });
    onTestFinished(() => this.client.close());
    this.traffic = new Traffic(8, () => this.#ask());
  }

  write(version: number, bytes: Uint8Array): void {
    writeInto(this.repository, { [`m/${version}/model.onnx`]: bytes });
  }

  /** What the next answers come from, such as `version 1: 2x + 1`. */
  async answers(count = 50): Promise<readonly string[]> {
    // Those under way may come from what was before.
    await this.traffic.more(8);
    this.#seen = new Set();
    await this.traffic.more(count);
    return [...this.#seen];
  }

  async index(): Promise<readonly string[]> {
    const index = await this.client.repositoryIndex();
    return index.map(({ version, state, reason }) => `${version} ${state} ${reason}`.trim());
  }

  async #ask(): Promise<void> {
    const answer = await this.client.infer('m', { x: [[1, 10, 0, 0]] });
    const [first = 0, second = 0, third] = answer.output().asNumbers();
    if (third !== 1 || second - 1 !== 10 * (first - 1)) throw new Error(`wrong answer ${first}, ${second}`);
    this.#seen.add(`version ${answer.version}: ${first - 1}x + 1`);
  }
}

async function start(name: string, ...args: string[]): Promise<ReloadWorld> {
  const repository = join(folder, name);
  mkdirSync(repository);
  writeInto(repository, { 'm/1/model.onnx': affine(2) });
  const host = await startHostProcess(['--repository', repository, '--device', 'cpu', ...args]);
  onTestFinished(async () => {
    await host.stop();
  });
  return new ReloadWorld(repository, host.grpc);
}

const garbage = affine(9).subarray(0, 100);

describe('reloading under load', { timeout: 60_000 }, () => {
  it('by request: no request fails, whatever is loaded, and what is broken leaves the old one serving', async () => {
    const world = await start('explicit', '--model-control-mode', 'explicit', '--load-model', 'm');
    expect(await world.answers()).toEqual(['version 1: 2x + 1']);

    world.write(1, affine(3));
    await world.client.loadModel('m');
    expect(await world.answers()).toEqual(['version 1: 3x + 1']);

    world.write(2, affine(4));
    await world.client.loadModel('m');
    expect(await world.answers()).toEqual(['version 2: 4x + 1']);

    world.write(3, garbage);
    await expect(world.client.loadModel('m')).rejects.toMatchObject({ code: 'MODEL_INVALID' });
    expect(await world.answers()).toEqual(['version 2: 4x + 1']);
    expect(await world.index()).toContainEqual(expect.stringMatching(/^3 UNAVAILABLE not a readable ONNX model/));
    expect(await world.index()).toContain('2 READY');

    world.write(2, garbage);
    rmSync(join(world.repository, 'm/3'), { recursive: true });
    await expect(world.client.loadModel('m')).rejects.toMatchObject({ code: 'MODEL_INVALID' });
    expect(await world.answers()).toEqual(['version 2: 4x + 1']);
    expect(await world.index()).toContainEqual(
      expect.stringMatching(/^2 READY serves as it was loaded before; reloading failed: not a readable ONNX model/),
    );

    for (let round = 0; round < 5; round += 1) {
      world.write(2, affine(5 + round));
      await Promise.all([world.client.loadModel('m'), world.client.loadModel('m')]);
      expect(await world.answers()).toEqual([`version 2: ${5 + round}x + 1`]);
    }
    await world.traffic.stop();
    expect(world.traffic.failures).toEqual([]);
  });

  it('by looking at the repository: the same', async () => {
    const world = await start('poll', '--model-control-mode', 'poll', '--poll-seconds', '1');
    const answersBecome = (what: string) =>
      until(
        'the new version',
        () => world.answers(20),
        (seen) => seen.length === 1 && seen[0] === what,
      );
    const indexTells = (pattern: RegExp) =>
      until(
        'the reason',
        () => world.index(),
        (index) => index.some((line) => pattern.test(line)),
      );
    await answersBecome('version 1: 2x + 1');

    world.write(1, affine(3));
    await answersBecome('version 1: 3x + 1');

    world.write(2, garbage);
    await indexTells(/^2 UNAVAILABLE not a readable ONNX model/);
    expect(await world.answers()).toEqual(['version 1: 3x + 1']);

    world.write(2, affine(4));
    await answersBecome('version 2: 4x + 1');

    rmSync(join(world.repository, 'm/2'), { recursive: true });
    await answersBecome('version 1: 3x + 1');
    await world.traffic.stop();
    expect(world.traffic.failures).toEqual([]);
  });
});
