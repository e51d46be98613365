/**
 * Draws examples/pictures/seven.png: a seven in the hand of examples/training, seven times as large as the model wants it,
 * so that `intarsia infer` has something to scale. Run with `node dist/examples/pictures/draw-seven.js`.
 */
import { writeFile } from 'node:fs/promises';
import sharp from 'sharp';
import { drawDigit, imagePixels, imageSide } from '../training/draw-digits.js';
import { RandomNumbers } from '../training/random-numbers.js';

const seed = 7;
const stream = 77;
const scale = 7;

/** The PNG's bytes; the same with every run. */
export async function drawSeven(): Promise<Uint8Array> {
  const image = new Float32Array(imagePixels);
  drawDigit(7, new RandomNumbers(seed, stream), image);
  const pixels = Uint8Array.from(image, (value) => Math.round(value * 255));
  return sharp(pixels, { raw: { width: imageSide, height: imageSide, channels: 1 } })
    .resize(imageSide * scale, imageSide * scale, { kernel: 'cubic' })
    .png({ compressionLevel: 9 })
    .toBuffer();
}

if (process.argv[1] === import.meta.filename) await writeFile('examples/pictures/seven.png', await drawSeven());
