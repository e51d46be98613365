/** A variant on a real host: compared with the exact model on the device that is to serve it, whatever its record says. */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { NodeClock } from '#adapters/node/clock.js';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import { connect } from '#client/index.js';
import { VariantExams } from '#compose/variants/variant-exams.js';
import { artifactDigest } from '#core/ids.js';
import { GiB } from '#core/units.js';
import type { VariantRecord } from '#core/variants/variant-record.js';
import type { Placement } from '#actors/device/protocol.js';
import { affine, writeInto } from '../e2e/faulty-models.js';
import { startHostProcess } from '../e2e/host-process.js';
import { temporaryFolder } from '../e2e/temporary-folder.js';

const folder = temporaryFolder();
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const exact = affine(2);

function record(file: Uint8Array): VariantRecord {
  return {
    ...{ kind: 'fp16', digest: sha256(file), bytes: file.byteLength, tolerance: 0.01, vectors: [], notes: [] },
    madeFrom: { digest: sha256(exact), bytes: exact.byteLength },
    rows: [
      {
        ...{ provider: 'cpu', engine: 'onnxruntime-node', verdict: 'equal', reason: '' },
        ...{ maxAbsoluteError: 0, maxRelativeError: 0, errorShare: 0, argMaxAgreement: 1, cosine: 1 },
        ...{ runMs: 1, exactRunMs: 2 },
      },
    ],
  };
}

/** A model `name` with a variant whose record says that it is equal and faster. */
function files(name: string, variant: Uint8Array): Readonly<Record<string, string | Uint8Array>> {
  return {
    [`${name}/config.pbtxt`]: 'parameters { key: "intarsia_variants" value { string_value: "allow" } }',
    [`${name}/1/model.onnx`]: exact,
    [`${name}/1/variants/fp16/model.onnx`]: variant,
    [`${name}/1/variants/fp16/variant.json`]: JSON.stringify(record(variant)),
  };
}

describe('a variant on a real host', () => {
  it(
    'is served where it answers as the exact model does, and not where it does not',
    { timeout: 120_000 },
    async () => {
      const repository = join(folder, 'host');
      writeInto(repository, { ...files('near', affine(2.001)), ...files('far', affine(2.2)) });
      const host = await startHostProcess(['--repository', repository, '--device', 'cpu:0']);
      const client = connect({ endpoints: host.grpc, discovery: false });
      try {
        const formOf = async (model: string): Promise<readonly [unknown, number]> => {
          const x = { datatype: 'FP32', shape: [1, 4], data: Float32Array.of(1, 2, 3, 4) } as const;
          const answer = await client.infer(model, { x });
          const [, , , last] = answer.output('y').toArray() as number[];
          return [answer.parameters.get('intarsia_variant')?.value ?? 'exact', last ?? NaN];
        };
        expect(await formOf('near')).toEqual(['fp16', Math.fround(4 * Math.fround(2.001)) + 1]);
        expect(await formOf('far')).toEqual(['exact', 9]);
      } finally {
        client.close();
      }
      const { code, stderr } = await host.stop();
      expect(code).toBe(0);
      expect(stderr).toContain('variant fp16 on cpu here: largest error');
      expect(stderr).toMatch(
        /variant fp16 on cpu here is not near enough to model 'far' version 1: largest error 0\.0/,
      );
    },
  );

  it('is asked what the exact model answers once for all devices, and nothing when the host stops', async () => {
    writeInto(folder, { 'm/1/model.onnx': exact });
    let started = 0;
    const exams = new VariantExams({
      startCpu: () => {
        started += 1;
        return startProcessExecutor({ provider: 'cpu', lanes: 1 });
      },
      ...{ clock: new NodeClock(), memoryBytes: GiB },
    });
    const placement = {
      artifact: { digest: artifactDigest(sha256(exact)), path: `${folder}/m/1/model.onnx` },
      weightBytes: exact.byteLength,
    } as Placement;
    const [first, second] = await Promise.all([
      exams.examOf(placement, record(exact)),
      exams.examOf(placement, record(exact)),
    ]);
    expect(started).toBe(1);
    expect(second.questions).toBe(first.questions);
    expect(first).toMatchObject({ kind: 'fp16', limit: 0.01 });
    for (const { inputs, expected } of first.questions) {
      const [x] = inputs.map(({ data }) => new Float32Array(data.slice().buffer));
      const [y] = expected.map(({ data }) => new Float32Array(data.slice().buffer));
      expect([...(y ?? [])]).toEqual([...(x ?? [])].map((value) => Math.fround(Math.fround(2 * value) + 1)));
    }
    await exams.end();
    const other = { ...placement, artifact: { ...placement.artifact, digest: artifactDigest('0'.repeat(64)) } };
    await expect(exams.examOf(other, record(exact))).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    expect(started).toBe(1);
  });
});
