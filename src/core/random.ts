/**
 * Seeded chance: sfc32 (Chris Doty-Humphrey's Small Fast Counter, which passes PractRand), seeded by a hash of a text.
 * It has the shape of the Random port; the real system and the simulator use this same generator.
 *
 * A stream is named by the labels that lead to it, never by the state of its parent: a new draw in one stream leaves all
 * others alone. Not for secrets.
 */

/** A stream of numbers that its seed and its labels determine wholly. */
export class RandomStream {
  private readonly key: string;
  private a: number;
  private b: number;
  private c: number;
  private counter = 1;

  constructor(seed: string | number) {
    this.key = typeof seed === 'number' ? `number ${seed}` : `text ${seed}`;
    [this.a, this.b, this.c] = hashWords(this.key);
    // The first outputs of sfc32 still show the seed; the author asks for 12 to be thrown away.
    for (let round = 0; round < 12; round += 1) this.nextWord();
  }

  /** Uniform in [0, 1), with 53 random bits. */
  next(): number {
    const high = this.nextWord() >>> 5;
    const low = this.nextWord() >>> 6;
    return (high * 67_108_864 + low) / 9_007_199_254_740_992;
  }

  /** Uniform whole number in [0, bound); `bound` is at least 1. The bias is below bound / 2^53. */
  below(bound: number): number {
    return Math.floor(this.next() * bound);
  }

  /** An independent stream; the same label gives the same stream. */
  stream(label: string): RandomStream {
    return new RandomStream(`${this.key.length}:${this.key}/${label}`);
  }

  private nextWord(): number {
    const sum = (this.a + this.b + this.counter) | 0;
    this.counter = (this.counter + 1) | 0;
    this.a = this.b ^ (this.b >>> 9);
    this.b = (this.c + (this.c << 3)) | 0;
    this.c = (((this.c << 21) | (this.c >>> 11)) + sum) | 0;
    return sum;
  }
}

/** Three well-mixed 32-bit words of a text: MurmurHash3's body and finaliser, once for each word. */
function hashWords(text: string): [number, number, number] {
  return [hashWord(text, 0x9e3779b9), hashWord(text, 0x243f6a88), hashWord(text, 0xb7e15162)];
}

function hashWord(text: string, seed: number): number {
  let hash = seed | 0;
  for (let index = 0; index < text.length; index += 1) {
    let unit = Math.imul(text.charCodeAt(index), 0xcc9e2d51);
    unit = (unit << 15) | (unit >>> 17);
    hash ^= Math.imul(unit, 0x1b873593);
    hash = (hash << 13) | (hash >>> 19);
    hash = (Math.imul(hash, 5) + 0xe6546b64) | 0;
  }
  hash ^= text.length;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}
