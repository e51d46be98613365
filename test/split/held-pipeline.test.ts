/** Values between two stages on devices of one host that never come to the host: real actors and executor processes. */
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { SharedArea } from '#adapters/process/shared-area.js';
import { HeldWorld, valueOf } from './held-world.js';

const noArea = SharedArea.ofThisHost() === undefined;
const freeSlots = (): number => SharedArea.ofThisHost()!.free;

describe.skipIf(noArea)(
  'values that stay with the executors (skipped where the system has no shared memory files)',
  () => {
    let world: HeldWorld;
    let free = 0;
    beforeEach(async () => {
      free = freeSlots();
      world = await HeldWorld.start();
    });
    afterEach(async () => {
      await world.close();
    });
    /** Nothing is kept for anybody: neither at the stage desk nor in the shared area. */
    async function expectNothingKept(): Promise<void> {
      await vi.waitFor(() => expect([world.stageDesk.requestsKept, freeSlots()]).toEqual([0, free]), {
        timeout: 10_000,
      });
    }

    it('reach the next stage, for many requests at once, and leave nothing behind', async () => {
      const read = vi.spyOn(SharedArea.prototype, 'read');
      const asked = Array.from({ length: 40 }, (_, value) => world.infer(value));
      const answers = await Promise.all(asked.map(({ answer }) => answer));
      expect(answers.map(valueOf)).toEqual(asked.map((_, value) => 2 * (value + 1)));
      // The answers alone came to the host.
      expect(read.mock.calls.length).toBe(40);
      read.mockRestore();
      await expectNothingKept();
    });

    it('are let go of when the client cancels while the next stage runs', async () => {
      const cancelled = new Promise<void>((resolve) => {
        world.onLaunch.set('second', () => {
          world.onLaunch.clear();
          ticket.cancel();
          resolve();
        });
      });
      const { ticket, answer } = world.infer(1);
      await cancelled;
      await expect(answer).rejects.toMatchObject({ code: 'CANCELLED' });
      await expectNothingKept();
      expect(valueOf(await world.infer(5).answer)).toBe(12);
    });

    it('are let go of at the deadline, when whoever reads them comes back', async () => {
      world.onLaunch.set('second', () => {
        world.onLaunch.clear();
        const pid = world.pid('second');
        process.kill(pid, 'SIGSTOP');
        // It may go on for a moment, long enough for a run of so small a model.
        while (!/^\d+ \(.*\) T/s.test(readFileSync(`/proc/${pid}/stat`, 'latin1')));
      });
      const { answer } = world.infer(1, { deadlineMs: 300 });
      await expect(answer).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
      // The process that stands still may yet read them.
      expect(freeSlots()).toBeLessThan(free);
      process.kill(world.pid('second'), 'SIGCONT');
      await expectNothingKept();
      expect(valueOf(await world.infer(5).answer)).toBe(12);
    });

    it('go to a standby when the executor of the next stage is killed in its run, and only that stage runs again', async () => {
      world.holders(['second', 'standby']);
      let killed = 0;
      for (const name of ['second', 'standby'] as const) {
        world.onLaunch.set(name, () => {
          world.onLaunch.clear();
          killed = world.pid(name);
          process.kill(killed, 'SIGKILL');
        });
      }
      const asked = [1, 2, 3, 4].map((value) => world.infer(value));
      const answers = await Promise.all(asked.map(({ answer }) => answer));
      expect(killed).toBeGreaterThan(0);
      expect(answers.map(valueOf)).toEqual([4, 6, 8, 10]);
      expect(world.launches.first).toBe(4);
      expect([...world.counts.reruns.keys()]).toEqual([1]);
      await expectNothingKept();
    });

    it('outlive the executor that made them, also when the next one is lost with it', async () => {
      world.holders(['second', 'standby']);
      for (const name of ['second', 'standby'] as const) {
        world.onLaunch.set(name, () => {
          world.onLaunch.clear();
          process.kill(world.pid('first'), 'SIGKILL');
          process.kill(world.pid(name), 'SIGKILL');
        });
      }
      const { answer } = world.infer(7);
      expect(valueOf(await answer)).toBe(16);
      expect(world.launches).toMatchObject({ first: 1 });
      expect(world.launches.second + world.launches.standby).toBe(2);
      await expectNothingKept();
    });

    it('follow the next stage when it moves to another device while requests run and wait there', async () => {
      let moved: Promise<void> | undefined;
      world.onLaunch.set('second', () => {
        world.onLaunch.clear();
        world.holders(['standby']);
        moved = world.unload('second');
      });
      const asked = Array.from({ length: 12 }, (_, value) => world.infer(value));
      const answers = await Promise.all(asked.map(({ answer }) => answer));
      await moved;
      expect(answers.map(valueOf)).toEqual(asked.map((_, value) => 2 * (value + 1)));
      expect(world.launches.first).toBe(12);
      expect(world.launches.standby).toBeGreaterThan(0);
      await expectNothingKept();
    });
  },
);
