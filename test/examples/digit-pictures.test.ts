import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { decodePicture } from '#adapters/pictures/sharp-pictures.js';
import { digitPictures } from '#examples/generators/digit-pictures.js';

const folder = join(import.meta.dirname, '../../examples/pictures');

describe('the pictures of digits', () => {
  it('are in the repository as the generator draws them, all ten', async () => {
    const drawn = digitPictures();
    expect(await readdir(folder)).toEqual(drawn.map(({ name }) => `${name}.png`).sort());
    for (const { name, pixels } of drawn) {
      const picture = await decodePicture(join(folder, `${name}.png`), { channels: 1, fit: 'fill' });
      expect([picture.width, picture.height], name).toEqual([28, 28]);
      expect(Buffer.compare(picture.pixels, pixels), name).toBe(0);
    }
  });
});
