import { describe, expect, it } from 'vitest';
import type { ProfileReport, ProfileRequest } from '#cli/profile-report.js';
import { pretendProgram, run } from './pretend-program.js';

const shard = {
  ...{ device: 'cpu:0', provider: 'cpu', engine: 'onnxruntime-node 1.30.0', emulated: false, from: 0, to: 5, batch: 2 },
  ...{ count: 40, meanMs: 2, p50Ms: 1.9, p95Ms: 2.5, minMs: 1.8, spread: 0.1 },
  ...{ weightBytes: 2048, peakActivationBytes: 512, loadedBytes: 4096, inputBytes: 4, outputBytes: 8 },
};
const measured: ProfileReport = {
  ...{ model: 'model.onnx', digest: 'ab'.repeat(32), nodes: 5, precision: 'fp32', cuts: [2] },
  shards: [shard, { ...shard, device: 'emulated:nvidia-l4', emulated: true, from: 2 }],
  nodeTimes: [
    { device: 'cpu:0', batch: 1, method: 'engine', slowest: [{ node: 3, operator: 'Gemm', ms: 1.5 }], totalMs: 2 },
  ],
  links: [{ device: 'cpu:0', roundTripMs: 0.2, bytesPerSecond: 2 ** 30 }],
  ...{ missing: [], lostDevices: [], store: '/profiles', records: 9, exported: 0, exportPath: '', notes: [] },
};

function answering(report: ProfileReport) {
  const asked: ProfileRequest[] = [];
  const { program } = pretendProgram({
    profileModel: (request, progress) => {
      asked.push(request);
      progress(0.5, 'half');
      return Promise.resolve(report);
    },
  });
  return { asked, program };
}

describe('intarsia profile', () => {
  it('hands over what was asked and prints what was measured', async () => {
    const { asked, program } = answering(measured);
    const flags = '--devices cpu,wasm --batches 1,16 --cuts 3 --repeat 7 --shard-ms 20 --seconds 9 --store s --host h';
    const { code, out, err } = await run(
      ['profile', 'model.onnx', ...flags.split(' '), '--export', 'p.parquet', '--vectors', 'v', '--profiles', 'f'],
      program,
    );
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(asked).toEqual([
      {
        ...{ model: 'model.onnx', devices: ['cpu', 'wasm'], batches: [1, 16], cuts: 3, repeat: 7, shardMs: 20 },
        ...{ seconds: 9, store: 's', host: 'h', exportPath: 'p.parquet', vectors: 'v', profilesPath: 'f' },
      },
    ]);
    expect(out).toMatch(/cpu:0 +all 5 +2 +40/);
    expect(out).toMatch(/emulated:nvidia-l4 \(emulated\) +2 to 4/);
    expect(out).toMatch(/3 +Gemm +1\.5 ms +75 %/);
    expect(out).toContain('9 records written to /profiles');
  });

  it('prints the whole report as JSON', async () => {
    const { out } = await run(['profile', 'model.onnx', '--json'], answering(measured).program);
    expect(JSON.parse(out)).toEqual(measured);
  });

  it('ends with 2 when a device was gone and with 1 when nothing was measured, and says what is missing', async () => {
    const missing = [{ device: 'wasm:0', what: 'nodes', reason: 'the device was gone' }];
    const lost = await run(
      ['profile', 'model.onnx'],
      answering({ ...measured, missing, lostDevices: ['wasm:0'] }).program,
    );
    expect(lost.code).toBe(2);
    expect(lost.out).toContain('wasm:0: nodes: the device was gone');
    const nothing = await run(['profile', 'model.onnx'], answering({ ...measured, shards: [] }).program);
    expect(nothing.code).toBe(1);
  });

  it('refuses numbers beyond their bounds', async () => {
    const { asked, program } = answering(measured);
    for (const flags of ['--batches 0', '--batches 5000', '--cuts 300', '--repeat 2', '--shard-ms 1', '--seconds 0']) {
      const { code, err } = await run(['profile', 'model.onnx', ...flags.split(' ')], program);
      expect([flags, code]).toEqual([flags, 2]);
      expect(err).toContain('It must be');
    }
    expect(asked).toEqual([]);
  });
});
