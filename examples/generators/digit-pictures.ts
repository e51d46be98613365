/**
 * Ten pictures to try the digit model on, one of each digit, drawn with numbers that neither training nor tests use.
 */
import { drawDigit, imagePixels } from '../training/draw-digits.js';
import { digitsLabels } from '../training/digit-files.js';
import { RandomNumbers } from '../training/random-numbers.js';

export interface DigitPicture {
  /** The digit in words; the file is called after it. */
  readonly name: string;
  /** 28 × 28 grey values, row by row, 0 black to 255 white. */
  readonly pixels: Uint8Array;
}

/** Seed of the pictures; the digit is the stream. */
const seed = 7_000;

export function digitPictures(): readonly DigitPicture[] {
  const names = digitsLabels.split('\n').slice(0, 10);
  return names.map((name, digit) => {
    const image = new Float32Array(imagePixels);
    drawDigit(digit, new RandomNumbers(seed, digit), image);
    return { name, pixels: Uint8Array.from(image, (value) => Math.round(value * 255)) };
  });
}
