/**
 * A fingerprint of everything that happened, in its order: two runs with the same seed must end with the same one.
 * It is for comparing runs, not for security.
 */

const doubles = new Float64Array(1);
const words = new Int32Array(doubles.buffer);

export class Trace {
  private left = 0x9e3779b9 | 0;
  private right = 0x243f6a88 | 0;
  private foldCount = 0;

  /** Adds a number, all of its bits. */
  number(value: number): void {
    doubles[0] = value;
    this.word(words[0] ?? 0);
    this.word(words[1] ?? 0);
  }

  /** Adds a text. */
  text(value: string): void {
    for (let index = 0; index < value.length; index += 1) this.word(value.charCodeAt(index));
    this.word(~value.length);
  }

  /** How much was added so far: 0 means that a comparison would say nothing. */
  get length(): number {
    return this.foldCount;
  }

  /** 16 hexadecimal digits over everything added so far. */
  hash(): string {
    const hex = (word: number): string => (word >>> 0).toString(16).padStart(8, '0');
    return hex(finish(this.left ^ this.foldCount)) + hex(finish(this.right + this.left));
  }

  private word(value: number): void {
    this.foldCount += 1;
    this.left = Math.imul(this.left ^ value, 0x85ebca6b);
    this.left = (this.left << 13) | (this.left >>> 19);
    this.right = Math.imul((this.right + value) ^ this.left, 0xc2b2ae35);
    this.right = (this.right << 17) | (this.right >>> 15);
  }
}

function finish(word: number): number {
  let mixed = Math.imul(word ^ (word >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return mixed ^ (mixed >>> 16);
}
