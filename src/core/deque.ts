/**
 * A queue in a ring of slots: no allocation and no moving for each item. It grows by doubling and never shrinks; how many
 * items it may hold is its owner's business.
 *
 * `head` and `tail` count from the first item ever pushed and never wrap, so an owner can name a place in the queue
 * by its number: the item at `head` is next, `tail` is the number that the next item at the back will get.
 */
export class Deque<Item> {
  private slots: (Item | undefined)[];
  private mask: number;
  /** Number of the item that is next; falls when something is put in front. */
  head = 0;
  /** Number of the next item at the back. */
  tail = 0;

  constructor() {
    this.slots = new Array<Item | undefined>(16).fill(undefined);
    this.mask = 15;
  }

  get length(): number {
    return this.tail - this.head;
  }

  push(item: Item): void {
    if (this.tail - this.head > this.mask) this.grow();
    this.slots[this.tail & this.mask] = item;
    this.tail += 1;
  }

  pushFront(item: Item): void {
    if (this.tail - this.head > this.mask) this.grow();
    this.head -= 1;
    this.slots[this.head & this.mask] = item;
  }

  /** The next item, taken out. Only when `length` is above 0; otherwise what comes back is undefined. */
  shift(): Item {
    const slot = this.head & this.mask;
    const item = this.slots[slot] as Item;
    if (this.head < this.tail) {
      this.slots[slot] = undefined;
      this.head += 1;
    }
    return item;
  }

  /** The next item, left in place; undefined when there is none. */
  peek(): Item | undefined {
    return this.slots[this.head & this.mask];
  }

  private grow(): void {
    const size = this.slots.length;
    const slots = new Array<Item | undefined>(size * 2).fill(undefined);
    const mask = size * 2 - 1;
    for (let number = this.head; number < this.tail; number += 1) slots[number & mask] = this.slots[number & this.mask];
    this.slots = slots;
    this.mask = mask;
  }
}
