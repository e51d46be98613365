/** Outputs that stay in the area that executor processes of a host share, from one process to the next. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import { SharedArea, slotBytesMax } from '#adapters/process/shared-area.js';
import { heldBytes, type HeldBytes } from '#core/held-bytes.js';
import type { SessionId } from '#core/ids.js';
import type { Tensor } from '#core/tensor.js';
import type { Executor, RunInput, RunResult } from '#ports/executor.js';
import { floatsOf, input, loadRequest } from '#test/contract/executor.js';
import { writeExecutorModels } from '#test/contract/executor-models.js';

const rows = 16_384;
const affine = 'affine' as SessionId;
const noArea = SharedArea.ofThisHost() === undefined;
const area = (): SharedArea => SharedArea.ofThisHost()!;

let folder = '';
const started: Executor[] = [];
let start: () => Promise<Executor>;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'intarsia-held-'));
  const pathOf = writeExecutorModels(folder);
  start = async () => {
    const executor = await startProcessExecutor({ provider: 'cpu', lanes: 1 });
    started.push(executor);
    for (const name of ['affine', 'slow']) await executor.load(loadRequest(name, pathOf(name)));
    return executor;
  };
});
afterAll(async () => {
  await Promise.all(started.map((executor) => executor.close({ graceMs: 5_000 })));
  rmSync(folder, { recursive: true, force: true });
});

/** Row i is i four times; the affine model makes 2i + 1 of it, and 4i + 3 when run twice. */
function given(): RunInput {
  const values = Float32Array.from({ length: rows * 4 }, (_, index) => Math.floor(index / 4));
  return input('x', 'FP32', [rows, 4], new Uint8Array(values.buffer));
}
const run = (executor: Executor, inputs: readonly RunInput[]): Promise<RunResult> =>
  executor.run({ session: affine, inputs, outputs: [], leaveOutputs: true });
const placeOf = ({ outputs: [output] }: RunResult): HeldBytes => output![heldBytes]!;
const held = (...places: HeldBytes[]): RunInput => ({
  ...{ name: 'x', datatype: 'FP32', shape: [places.reduce((sum, { byteLength }) => sum + byteLength, 0) / 16, 4] },
  held: places,
  get chunks(): never {
    throw new Error('the host has looked at the values');
  },
});
function expectTwice(tensor: Tensor | undefined): void {
  const values = floatsOf(tensor);
  expect(values).toHaveLength(rows * 4);
  expect([values[0], values[7], values[4 * rows - 1]]).toEqual([3, 7, 4 * (rows - 1) + 3]);
}

describe.skipIf(noArea)(
  'outputs that stay where they are (skipped where the system has no shared memory files)',
  () => {
    it('are read by the next process without the host, and their slots are free afterwards', async () => {
      const free = area().free;
      const [first, second] = await Promise.all([start(), start()]);
      const left = await run(first, [given()]);
      expect(area().free).toBe(free - 1);
      const { outputs, release } = await run(second, [held(placeOf(left))]);
      expectTwice(outputs[0]);
      left.release?.();
      release?.();
      expect(area().free).toBe(free);
    });

    it('are joined from parts of several results', async () => {
      const free = area().free;
      const executor = await start();
      const [one, two] = [await run(executor, [given()]), await run(executor, [given()])];
      const bytes = rows * 16;
      const parts = [placeOf(one).part(0, bytes / 2), placeOf(two).part(bytes / 2, bytes / 2)];
      const joined = await run(executor, [held(...parts)]);
      expectTwice(joined.outputs[0]);
      for (const { release } of [one, two, joined]) release?.();
      expect(area().free).toBe(free);
    });

    it('outlive the process that made them, for the host and for another process', async () => {
      const free = area().free;
      const [first, second] = await Promise.all([start(), start()]);
      const left = await run(first, [given()]);
      const gone = new Promise((resolve) => first.onLost(resolve));
      process.kill(first.description.pid!, 'SIGKILL');
      await gone;
      const again = await run(second, [held(placeOf(left))]);
      expectTwice(again.outputs[0]);
      expect(floatsOf(left.outputs[0])[4]).toBe(3);
      for (const { release } of [left, again]) release?.();
      expect(area().free).toBe(free);
    });

    it('are given to another process when the one that had them is killed in its run', async () => {
      const free = area().free;
      const [first, second, standby] = await Promise.all([start(), start(), start()]);
      const left = await run(first, [given()]);
      const slow = second.run({
        session: 'slow' as SessionId,
        inputs: [input('x', 'FP32', [8, 512, 512], new Uint8Array(8 * 512 * 512 * 4))],
        outputs: [],
      });
      const lost = run(second, [held(placeOf(left))]);
      const outcomes = Promise.allSettled([slow, lost]);
      process.kill(second.description.pid!, 'SIGKILL');
      for (const outcome of await outcomes) expect(outcome).toMatchObject({ reason: { code: 'EXECUTOR_LOST' } });
      const again = await run(standby, [held(placeOf(left))]);
      expectTwice(again.outputs[0]);
      for (const { release } of [left, again]) release?.();
      expect(area().free).toBe(free);
    });

    it('are kept while a run reads them, and refused once they were let go of', async () => {
      const free = area().free;
      const [first, second] = await Promise.all([start(), start()]);
      const left = await run(first, [given()]);
      const reading = run(second, [held(placeOf(left))]);
      left.release?.();
      left.release?.();
      // Whoever made the values has let go of them; the run has not.
      expect(area().free).toBeLessThan(free);
      const { outputs, release } = await reading;
      expectTwice(outputs[0]);
      release?.();
      expect(area().free).toBe(free);
      await expect(run(second, [held(placeOf(left))])).rejects.toMatchObject({ code: 'UNAVAILABLE' });
      expect(() => left.outputs[0]!.data).toThrow(/were let go of/);
      expect(area().free).toBe(free);
    });

    it('give their slots back when nobody lets go of them', async () => {
      const free = area().free;
      const executor = await start();
      await (async () => {
        await run(executor, [given()]);
      })();
      setFlagsFromString('--expose-gc');
      const collect = runInNewContext('gc') as () => void;
      await vi.waitFor(
        () => {
          collect();
          expect(area().free).toBe(free);
        },
        { timeout: 10_000 },
      );
    });

    it('come here as other results do when all slots are taken', async () => {
      const executor = await start();
      const taken: number[] = [];
      for (let slot = area().take(); slot > 0; slot = area().take()) taken.push(slot);
      const { outputs } = await run(executor, [given()]);
      expect(outputs[0]![heldBytes]).toBeUndefined();
      for (const slot of taken) area().giveBack(slot);
      const again = await run(executor, [input('x', 'FP32', [rows, 4], outputs[0]!.data)]);
      expectTwice(again.outputs[0]);
      again.release?.();
    });

    it('are told of by this host alone: what lies elsewhere is brought here and sent', async () => {
      const executor = await start();
      const [chunk] = given().chunks;
      const foreign: HeldBytes = { byteLength: chunk!.byteLength, read: () => chunk!, part: () => foreign };
      const { outputs, release } = await run(executor, [{ ...given(), held: [foreign] }]);
      expect(floatsOf(outputs[0])[4]).toBe(3);
      release?.();
    });

    it('lie within their slot: the area reads nothing beyond it', () => {
      const byte = new Uint8Array(1);
      for (const [slot, offset] of [
        [0, 0],
        [65, 0],
        [1, slotBytesMax],
      ] as const) {
        expect(() => area().read(slot, offset, byte)).toThrow(/has no 1 bytes/);
      }
    });
  },
);
