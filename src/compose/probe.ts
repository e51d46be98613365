/**
 * Tries an accelerator before it is believed: a tiny model in an executor process of its own, so that a driver that
 * aborts takes nothing along.
 */
import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import { deviceEnvironment, type ProbeOutcome } from '#core/device-discovery.js';
import type { DeviceDescriptor } from '#core/device.js';
import { messageOf } from '#core/errors.js';
import { artifactDigest, sessionId } from '#core/ids.js';
import { GraphBuilder } from '#core/onnx/builder.js';
import { encodeModelBytes } from '#core/onnx/writer.js';

const startMsMax = 30_000;
const runMsMax = 30_000;

/** Adds two numbers on the device; the outcome says whether the sum was right. */
export async function probeDevice(device: DeviceDescriptor): Promise<ProbeOutcome> {
  const folder = await mkdtemp(join(tmpdir(), 'intarsia-probe-'));
  try {
    const model = additionModel();
    const path = join(folder, 'model.onnx');
    await writeFile(path, model);
    const digest = artifactDigest(createHash('sha256').update(model).digest('hex'));
    const executor = await startProcessExecutor({
      provider: device.provider,
      lanes: 1,
      startMsMax,
      runMsMax,
      loadMsMax: runMsMax,
      env: deviceEnvironment(device),
    });
    try {
      const session = sessionId('probe');
      await executor.load({
        session,
        artifact: { digest, path },
        model: { name: 'probe', version: '1' },
        options: { intraOpThreads: 1, optimization: 'disabled' },
      });
      const two = new Uint8Array(new Float32Array([2]).buffer);
      const three = new Uint8Array(new Float32Array([3]).buffer);
      const { outputs } = await executor.run({
        session,
        inputs: [
          { name: 'a', datatype: 'FP32', shape: [1], chunks: [two] },
          { name: 'b', datatype: 'FP32', shape: [1], chunks: [three] },
        ],
        outputs: [],
      });
      const sum = outputs[0] === undefined ? undefined : new Float32Array(new Uint8Array(outputs[0].data).buffer)[0];
      return sum === 5 ? { ok: true } : { ok: false, reason: `2 + 3 came out as ${String(sum)}` };
    } finally {
      await executor.close({ graceMs: 5_000 });
    }
  } catch (error) {
    return { ok: false, reason: messageOf(error) };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function additionModel(): Uint8Array {
  const graph = new GraphBuilder('addition');
  const a = graph.input('a', 'FP32', [1]);
  const b = graph.input('b', 'FP32', [1]);
  graph.output(graph.node('Add', [a, b], { output: 'sum' }), 'FP32', [1]);
  return encodeModelBytes(graph.model({ opset: 17 }));
}
