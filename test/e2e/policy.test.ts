/** `intarsia policy` against a host and gateway processes as users run them, with requests all the while. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { connect, type PolicyBook } from '#client/index.js';
import { batchFeatureCount, batchFeatureNames } from '#core/scheduling/batch-features.js';
import { batchingBytes, linearNetwork, policyBytes } from '../scheduling/policies.js';
import { repositoryRoot, runProgram, startHostProcess, type HostProcess } from './host-process.js';
import { temporaryFolder } from './temporary-folder.js';

const folder = temporaryFolder();
const running: HostProcess[] = [];
afterEach(async () => {
  for (const host of running.splice(0)) await host.stop('SIGKILL');
});

const picture = { image: { shape: [1, 1, 28, 28], data: new Float32Array(784) } };

/** `intarsia policy WORDS` at this endpoint. */
function policyCommand(endpoint: string) {
  return async (...words: string[]): Promise<{ readonly code: number | null; readonly said: string }> => {
    const { code, stdout, stderr } = await runProgram(['policy', ...words, '--endpoint', endpoint]);
    return { code, said: stdout + stderr };
  };
}

describe('intarsia policy and a grid of a host and two gateway processes', { timeout: 240_000 }, () => {
  it('asks a policy as a shadow, promotes it by force and takes it back, and no request is lost meanwhile', async () => {
    const file = join(folder, 'quick.onnx');
    writeFileSync(file, policyBytes('quick', { network: linearNetwork({ 1: -1, 2: -1, 3: -1 }) }));
    const host = await startHostProcess(
      [
        ['--name', 'h', '--gateways', '2', '--store-port', '0', '--link-port', '0', '--data-dir', folder],
        ['--repository', join(repositoryRoot, 'examples/models'), '--device', 'cpu', '--cpu-threads', '1'],
      ].flat(),
    );
    running.push(host);
    const client = connect({ endpoints: [host.grpc] });
    const policy = policyCommand(host.grpc);
    const until = async (isDone: (book: PolicyBook) => boolean): Promise<PolicyBook> => {
      for (let look = 0; look < 300; look += 1) {
        const book = await client.grid.policies();
        if (isDone(book)) return book;
        await delay(100);
      }
      throw new Error('the policies did not come to the state that was waited for within 300 looks');
    };
    let answered = 0;
    const load = new AbortController();
    const sending = (async () => {
      while (!load.signal.aborted) {
        await client.infer('digits', picture, { timeoutMs: 20_000 });
        answered += 1;
      }
    })();
    try {
      expect(await policy('shadow', file, '--reason', 'first look')).toMatchObject({ code: 0 });
      const seen = await until(({ sightings }) => sightings.some(({ decisions }) => decisions > 20));
      expect(seen.pointer).toMatchObject({ mode: 'shadow', base: 'own', reason: 'first look' });
      expect(seen.sightings.every(({ refused }) => refused === '')).toBe(true);
      expect(seen.sightings.flatMap(({ groups }) => groups).some(({ model }) => model === 'digits')).toBe(true);

      const refused = await policy('promote');
      expect(refused).toMatchObject({ code: 1 });
      expect(refused.said).toContain('not every gate is passed, nothing is changed');
      const forced = await policy('promote', '--all', '--force', '--reason', 'drill');
      expect(forced).toMatchObject({ code: 0 });
      expect(forced.said).toMatch(/quick@[0-9a-f]{12} decides about all requests/);
      const before = answered;
      while (answered < before + 50) await delay(20);

      expect(await policy('rollback', '--reason', 'drill over')).toMatchObject({ code: 0 });
      const after = await until(({ pointer }) => pointer?.mode === 'rule');
      expect(after.pointer).toMatchObject({ number: 3, policy: 'own', reason: 'drill over' });
      expect((await policy('list')).said).toContain('every host decides by the policy it was started with');
    } finally {
      load.abort();
      // A request that failed fails the test.
      await sending;
      client.close();
    }
    const { stdout } = await runProgram(['events', '--endpoint', host.grpc]);
    expect(stdout).toMatch(/policies: promoted through host .*passed over evaluation.*reason: drill/);
    expect(stdout).toMatch(/policies: taken back through host .*; reason: drill over/);
  });
});

describe('intarsia policy with a file that forms batches, and a host', { timeout: 240_000 }, () => {
  it('promotes both files at once, which devices then go by, and takes both back', async () => {
    const file = join(folder, 'dispatch.onnx');
    writeFileSync(file, policyBytes('patient', { network: linearNetwork({ 1: -1, 2: -1, 3: -1 }) }));
    // The longer the wait the better: two fifths of a target of 2 s, where the host's own rule waits for nobody.
    const batches = join(folder, 'batching.onnx');
    const waits = linearNetwork({ [batchFeatureNames.indexOf('wait')]: 1 }, batchFeatureCount);
    writeFileSync(batches, batchingBytes('patient-batches', waits));
    const host = await startHostProcess(
      [
        ['--name', 'h', '--store-port', '0', '--link-port', '0', '--data-dir', join(folder, 'alone')],
        ['--repository', join(repositoryRoot, 'examples/models'), '--device', 'cpu', '--cpu-threads', '1'],
      ].flat(),
    );
    running.push(host);
    const client = connect({ endpoints: [host.grpc] });
    const policy = policyCommand(host.grpc);
    /** Sends requests until one has waited in its queue as long as that says. */
    const untilQueued = async (isSo: (queueMs: number) => boolean): Promise<void> => {
      for (let request = 0; request < 1000; request += 1) {
        const { receipt } = await client.infer('digits', picture, { sloMs: 2000, timeoutMs: 20_000 });
        if (receipt !== undefined && isSo(receipt.queueUs / 1000)) return;
      }
      throw new Error('no request waited in its queue as it was expected to');
    };
    try {
      await untilQueued((ms) => ms < 400);
      expect(await policy('shadow', file, '--batching', batches)).toMatchObject({ code: 0 });
      expect(await policy('promote', '--all', '--force', '--reason', 'drill')).toMatchObject({ code: 0 });
      await untilQueued((ms) => ms > 600);
      expect(await policy('rollback', '--reason', 'drill over')).toMatchObject({ code: 0 });
      await untilQueued((ms) => ms < 400);
      expect((await client.grid.policies()).pointer).toMatchObject({ mode: 'rule', policy: 'own' });
    } finally {
      client.close();
    }
  });
});
