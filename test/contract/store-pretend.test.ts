import { VirtualClock } from '#sim/virtual-clock.js';
import { PretendStore } from '#sim/pretend-store.js';
import { storeContract } from './store.js';

storeContract('pretend store', () => {
  const clock = new VirtualClock();
  const store = new PretendStore({ clock });
  const turn = async (what: string, isDone: () => boolean): Promise<void> => {
    const endMs = clock.nowMs() + 120_000;
    await clock.settleUntil();
    while (!isDone()) {
      if (clock.nextMs() > endMs) throw new Error(`${what}: did not come within 120 virtual seconds`);
      await clock.settleUntil(clock.nextMs());
    }
  };
  return Promise.resolve({
    clock,
    open: (host: string) => store.client(host),
    settle: async <Result>(promise: Promise<Result>): Promise<Result> => {
      let settled = false;
      const note = (): void => {
        settled = true;
      };
      promise.then(note, note);
      await turn('a call', () => settled);
      return promise;
    },
    until: turn,
    stop: () => {
      store.away();
      return Promise.resolve();
    },
    start: () => {
      store.back();
      return Promise.resolve();
    },
    wipe: () => {
      store.wipe();
      return Promise.resolve();
    },
    compact: () => {
      store.compact();
      return Promise.resolve();
    },
    // Virtual wall time cannot jump; nothing below the adapters reads it.
    stepWall: () => {},
    end: () => Promise.resolve(),
  });
});
