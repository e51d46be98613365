import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import type { SessionId } from '#core/ids.js';
import type { ExecutionProvider } from '#core/provider.js';
import { floats, floatsOf, input, loadRequest } from '#test/contract/executor.js';
import { writeExecutorModels } from '#test/contract/executor-models.js';

/** Vulkan in software, from Debian's chromium package: the true WebGPU path on a machine without a GPU. */
const swiftShader = '/usr/lib/chromium/vk_swiftshader_icd.json';

let folder = '';
let pathOf: (name: string) => string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'intarsia-providers-'));
  pathOf = writeExecutorModels(folder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function resultOf(provider: ExecutionProvider, env: Record<string, string> = {}): Promise<number[]> {
  const executor = await startProcessExecutor({ provider, env, lanes: 1 });
  try {
    await executor.load(loadRequest('mlp', pathOf('mlp')));
    const values = Array.from({ length: 16 }, (_, index) => Math.cos(index * 3.1));
    const { outputs } = await executor.run({
      session: 'mlp' as SessionId,
      inputs: [input('x', 'FP32', [2, 8], floats(...values))],
      outputs: [],
    });
    return floatsOf(outputs[0]);
  } finally {
    await executor.close({ graceMs: 20_000 });
  }
}

/** Largest difference relative to the larger of the two values. */
function relativeDifference(left: readonly number[], right: readonly number[]): number {
  return Math.max(...left.map((value, index) => Math.abs(value - right[index]!) / Math.max(Math.abs(value), 1e-12)));
}

describe('execution providers', () => {
  it('cpu and wasm give the same numbers', async () => {
    const cpu = await resultOf('cpu');
    expect(cpu).toHaveLength(16);
    // Each row is a softmax: a wrong engine would hardly add up to one.
    expect(cpu.slice(0, 8).reduce((sum, value) => sum + value, 0)).toBeCloseTo(1, 5);
    expect(relativeDifference(cpu, await resultOf('wasm'))).toBeLessThan(1e-5);
  });

  it.skipIf(!existsSync(swiftShader))(
    'cpu and webgpu give the same numbers (skipped without SwiftShader of the chromium package)',
    async () => {
      const webgpu = await resultOf('webgpu', { VK_DRIVER_FILES: swiftShader, VK_ICD_FILENAMES: swiftShader });
      expect(relativeDifference(await resultOf('cpu'), webgpu)).toBeLessThan(1e-4);
    },
  );

  it.skipIf(process.platform !== 'linux')(
    'says that a provider’s device is missing rather than blame the model (skipped where WebGPU is not Vulkan)',
    async () => {
      const executor = await startProcessExecutor({
        provider: 'webgpu',
        env: { VK_DRIVER_FILES: '/nonexistent', VK_ICD_FILENAMES: '/nonexistent' },
      });
      await expect(executor.load(loadRequest('mlp', pathOf('mlp')))).rejects.toMatchObject({
        code: 'DEVICE_UNAVAILABLE',
      });
      await executor.close({ graceMs: 5_000 });
    },
  );
});
