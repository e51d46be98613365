/** The events of a grid, from the store, to whoever listens. */
import type { GridEvent } from '#core/grid/records.js';
import type { Clock } from '#ports/clock.js';
import type { GridEventLine, GridEventListener } from '#ports/grid-admin.js';
import { storeCallMsMax, type StoreOfGrid } from './grid-reads.js';

/** Tells events after that number, oldest first, and goes on as they come when it is to follow. The result ends it. */
export function watchGridEvents(
  { store, keys, clock }: StoreOfGrid & { readonly clock: Clock },
  { after, follow }: { readonly after: number; readonly follow: boolean },
  listener: GridEventListener,
): () => void {
  let isOver = false;
  let last = after;
  /** What was told under the last number: the leader and who promotes a policy may take the same one. */
  const toldOfLast = new Set<string>();
  let stopWatch = (): void => {};
  const end = (error?: unknown): void => {
    if (isOver) return;
    isOver = true;
    stopWatch();
    listener.end(error);
  };
  const tell = (events: readonly GridEventLine[]): void => {
    for (const event of [...events].sort((a, b) => a.number - b.number)) {
      if (isOver || event.number <= after || event.number < last) continue;
      if (event.number > last) toldOfLast.clear();
      last = event.number;
      if (toldOfLast.has(event.text)) continue;
      toldOfLast.add(event.text);
      listener.event(event);
    }
  };
  const begin = async (): Promise<void> => {
    const snapshot = await store.range(keys.events, { deadlineMs: clock.nowMs() + storeCallMsMax });
    if (isOver) return;
    tell(snapshot.entries.flatMap(({ value }) => eventOf(value)));
    if (!follow) {
      end();
      return;
    }
    const watch = store.watch(keys.events, snapshot.revision + 1, (event) => {
      if (event.type === 'lost') {
        watch.cancel();
        begin().catch(end);
      } else if (event.type === 'changes') {
        tell(event.changes.flatMap((change) => (change.type === 'put' ? eventOf(change.entry.value) : [])));
      }
    });
    stopWatch = () => watch.cancel();
  };
  begin().catch(end);
  return () => {
    isOver = true;
    stopWatch();
  };
}

/** What somebody wrote under `events/`: nothing when it is no event. */
function eventOf(text: string): readonly GridEventLine[] {
  try {
    const { sequence, wallMs, level, subject, text: said } = JSON.parse(text) as GridEvent;
    return [{ number: sequence, wallMs, level, subject, text: said }];
  } catch {
    return [];
  }
}
