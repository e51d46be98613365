/** Memory of large tensors is used again while others still read theirs: every answer must be that of its own request. */
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { connect, type InferenceClient, type OutputTensor } from '#client/index.js';
import { repositoryRoot, startHostProcess } from './host-process.js';

/** Values that no other request has. Lengths are shared by some, which therefore meet in batches. */
function valuesOf(request: number): Float32Array {
  return new Float32Array(150_528 - 64 * (request % 3)).map((_, index) => request * 1000 + (index % 997));
}

function inputsOf(request: number) {
  const data = valuesOf(request);
  return { INPUT0: { data, shape: [1, data.length] } };
}

function expectOwn(output: OutputTensor, request: number): void {
  expect(Buffer.from(output.data).equals(Buffer.from(valuesOf(request).buffer))).toBe(true);
}

async function hostWithIdentity(): Promise<InferenceClient> {
  const host = await startHostProcess(['--repository', join(repositoryRoot, 'examples/models'), '--device', 'cpu']);
  onTestFinished(async () => {
    await host.stop('SIGKILL');
  });
  const client = connect({ endpoints: host.grpc, attemptsMax: 1 });
  onTestFinished(() => client.close());
  return client;
}

describe('large tensors', { timeout: 120_000 }, () => {
  it('each of many calls at once gets the answer to its own request, while others are given up', async () => {
    const client = await hostWithIdentity();
    let next = 0;
    let answered = 0;
    const caller = async (): Promise<void> => {
      while (next < 200) {
        next += 1;
        const request = next;
        const isGivenUp = request % 5 === 0;
        const abort = new AbortController();
        const flight = client.infer('identity', inputsOf(request), { signal: abort.signal });
        if (isGivenUp) setImmediate(() => abort.abort());
        const answer = await flight.catch((error: unknown) => {
          if (!isGivenUp) throw error;
        });
        if (answer === undefined) continue;
        expectOwn(answer.output(), request);
        answered += 1;
      }
    };
    await Promise.all(Array.from({ length: 24 }, caller));
    expect(answered).toBeGreaterThanOrEqual(160);
  });

  it('each of many requests on a stream gets its own answer', async () => {
    const client = await hostWithIdentity();
    const requests = Array.from({ length: 150 }, (_, request) => ({
      model: 'identity',
      inputs: inputsOf(request),
      options: { id: String(request) },
    }));
    let answered = 0;
    for await (const item of client.stream(requests, { windowMax: 16 })) {
      if (!item.ok) throw item.error;
      expectOwn(item.result.output(), Number(item.id));
      answered += 1;
    }
    expect(answered).toBe(150);
  });
});
