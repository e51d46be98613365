import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { openRepository } from '#adapters/files/repository.js';
import { NodeClock } from '#adapters/node/clock.js';
import { SeededRandom } from '#adapters/node/random.js';
import { modelRegistryActor } from '#actors/model-registry/actor.js';
import type { RegistryOutcome } from '#actors/model-registry/protocol.js';
import { emptyCatalog, type Catalog } from '#core/catalog.js';
import { firstFit } from '#policies/residency/residency-first-fit.js';
import { silentLog } from '#ports/log.js';
import { ActorSystem } from '#runtime/system.js';
import { RepositoryFolder } from '../files/repository-folder.js';
import { identity, PretendDevice } from './model-registry-world.js';

const shared = join(import.meta.dirname, '../../../shared/models/triton-model-repository');

async function scanned(root: string): Promise<{ readonly catalog: Catalog; readonly device: PretendDevice }> {
  const files = await openRepository({ roots: [root] });
  const clock = new NodeClock();
  const system = new ActorSystem({ host: 'host', clock, random: new SeededRandom('test'), log: silentLog });
  onTestFinished(async () => {
    await system.drain({ deadlineMs: clock.nowMs() + 1000 });
    await files.close();
  });
  const device = new PretendDevice(system, 'cpu:0', []);
  let catalog = emptyCatalog;
  const registry = system.spawn(
    'models',
    modelRegistryActor({
      files,
      mode: 'none',
      pollMs: 15_000,
      startupModels: [],
      devices: [{ descriptor: device.descriptor, ref: device.ref }],
      residency: firstFit,
      publish: (published) => {
        catalog = published;
      },
    }),
  );
  const outcome = await registry.ask<RegistryOutcome>((replyTo) => ({ type: 'scan', replyTo }), {
    deadlineMs: clock.nowMs() + 20_000,
  });
  expect(outcome).toEqual({ ok: true });
  return { catalog, device };
}

function index(catalog: Catalog): readonly string[] {
  return [...catalog.models.values()].flatMap(({ name, versions, reason }) =>
    versions.length === 0
      ? [`${name}: ${reason}`]
      : versions.map(({ version, state, reason: why }) => `${name}/${version} ${state} ${why}`.trim()),
  );
}

describe('the registry over folders on disk', () => {
  it('gives devices private copies of what it hashed, and tells why a model is not served', async () => {
    const folder = new RepositoryFolder();
    folder.write('good/1/model.onnx', identity(4));
    folder.write('typo/1/model.onnx', identity(4));
    folder.write('typo/config.pbtxt', 'max_batch_size: 8\ninputs { }');
    folder.write('empty/readme.txt', '');
    const { catalog, device } = await scanned(folder.path);
    expect(index(catalog)).toEqual([
      'empty: model "empty" has no version folder such as empty/1',
      'good/1 READY',
      'typo/1 UNAVAILABLE config.pbtxt:2:1: unknown field "inputs" in the configuration',
    ]);
    const path = device.placements[0]?.artifact.path ?? '';
    expect(path.startsWith(folder.path)).toBe(false);
    expect(readFileSync(path)).toEqual(Buffer.from(identity(4)));
  });

  it.skipIf(!existsSync(shared))("reads Triton's example repository (skipped without ../shared/models)", async () => {
    const { catalog } = await scanned(shared);
    expect(index(catalog)).toEqual([
      'densenet_onnx: model "densenet_onnx" has no version folder such as densenet_onnx/1',
      'inception_onnx: model "inception_onnx" has no version folder such as inception_onnx/1',
      'simple/1 READY',
      'simple_dyna_sequence/1 READY',
      'simple_identity: model "simple_identity" has no version folder such as simple_identity/1',
      'simple_int8/1 READY',
      'simple_sequence/1 READY',
      'simple_string/1 READY',
    ]);
  });
});
