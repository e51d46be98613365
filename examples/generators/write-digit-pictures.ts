/** Writes the pictures of digits: `node dist/examples/generators/write-digit-pictures.js --out examples/pictures`. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import sharp from 'sharp';
import { imageSide } from '../training/draw-digits.js';
import { digitPictures } from './digit-pictures.js';

const { values } = parseArgs({ options: { out: { type: 'string', default: 'examples/pictures' } } });
await mkdir(values.out, { recursive: true });
for (const { name, pixels } of digitPictures()) {
  const target = join(values.out, `${name}.png`);
  const raw = { width: imageSide, height: imageSide, channels: 1 as const };
  const { size } = await sharp(pixels, { raw }).png({ compressionLevel: 9 }).toFile(target);
  console.log(`${target}  ${size} bytes`);
}
