/**
 * Pending timers in the order in which they are due: a binary heap whose entries know their place, so that a cancelled
 * timer leaves at once. Timers due at the same moment fire in the order in which they were pushed.
 *
 * It knows no clock: whoever owns it says when a timer is due and takes out those whose time has come.
 */

/** A timer; in one heap at most. */
export interface TimerEntry {
  readonly dueMs: number;
  /** Grows with each timer that is made: breaks ties. */
  readonly sequence: number;
  readonly task: () => void;
  /** Place in the heap; -1 while it is in none. Written by the heap. */
  place: number;
}

export class TimerHeap {
  private readonly entries: TimerEntry[] = [];

  get size(): number {
    return this.entries.length;
  }

  /** The timer that is due first; it stays in the heap. */
  first(): TimerEntry | undefined {
    return this.entries[0];
  }

  push(entry: TimerEntry): void {
    entry.place = this.entries.length;
    this.entries.push(entry);
    this.rise(entry);
  }

  /** Takes the timer out; false when it had left before. */
  remove(entry: TimerEntry): boolean {
    const place = entry.place;
    if (place < 0) return false;
    entry.place = -1;
    const last = this.entries.pop();
    if (last === undefined || last === entry) return true;
    this.entries[place] = last;
    last.place = place;
    this.sink(last);
    this.rise(last);
    return true;
  }

  private rise(entry: TimerEntry): void {
    let place = entry.place;
    while (place > 0) {
      const parentPlace = (place - 1) >> 1;
      const parent = this.entries[parentPlace];
      if (parent === undefined || !isBefore(entry, parent)) break;
      this.entries[place] = parent;
      parent.place = place;
      place = parentPlace;
    }
    this.entries[place] = entry;
    entry.place = place;
  }

  private sink(entry: TimerEntry): void {
    let place = entry.place;
    for (;;) {
      let childPlace = 2 * place + 1;
      let child = this.entries[childPlace];
      if (child === undefined) break;
      const right = this.entries[childPlace + 1];
      if (right !== undefined && isBefore(right, child)) {
        child = right;
        childPlace += 1;
      }
      if (!isBefore(child, entry)) break;
      this.entries[place] = child;
      child.place = place;
      place = childPlace;
    }
    this.entries[place] = entry;
    entry.place = place;
  }
}

function isBefore(left: TimerEntry, right: TimerEntry): boolean {
  return left.dueMs < right.dueMs || (left.dueMs === right.dueMs && left.sequence < right.sequence);
}
