/**
 * Pictures from files, decoded by sharp (libvips). The package is an optional dependency with prebuilt binaries: where it
 * is not installed, everything but pictures works, and this says what to do.
 */
import { stat } from 'node:fs/promises';
import type { Sharp, SharpOptions } from 'sharp';
import { intarsiaError, messageOf } from '#core/errors.js';

export interface PictureWanted {
  readonly size?: { readonly width: number; readonly height: number };
  readonly channels: 1 | 3 | 4;
  readonly fit: 'fill' | 'cover' | 'contain';
}

export interface DecodedPicture {
  readonly width: number;
  readonly height: number;
  readonly channels: number;
  readonly pixels: Uint8Array;
}

/** Pixels of the largest picture that is decoded: a small file can name a huge one. */
const pixelsMax = 100_000_000;

type SharpFactory = (path: string, options: SharpOptions) => Sharp;

/**
 * Decodes, turns upright (EXIF), resizes and converts to 8-bit grey, sRGB or sRGB with alpha. Transparent parts of a
 * picture without alpha channel become black.
 * @throws UNIMPLEMENTED when sharp is not installed, INVALID_ARGUMENT when the file is no picture or too large.
 */
export async function decodePicture(path: string, wanted: PictureWanted): Promise<DecodedPicture> {
  const sharp = await loadSharp();
  await stat(path).catch((error: unknown) => {
    throw intarsiaError('CONFIG_INVALID', `picture ${path} cannot be read: ${messageOf(error)}`, { path });
  });
  try {
    const source = sharp(path, { limitInputPixels: pixelsMax, failOn: 'error' }).rotate();
    const flat = wanted.channels === 4 ? source.ensureAlpha() : source.flatten({ background: '#000' }).removeAlpha();
    const coloured = wanted.channels === 1 ? flat.greyscale() : flat.toColourspace('srgb');
    const sized =
      wanted.size === undefined
        ? coloured
        : coloured.resize(wanted.size.width, wanted.size.height, { fit: wanted.fit, background: '#000' });
    const { data, info } = await sized.raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true });
    return { width: info.width, height: info.height, channels: info.channels, pixels: data };
  } catch (error) {
    throw intarsiaError('INVALID_ARGUMENT', `picture ${path} cannot be decoded: ${messageOf(error)}`, { path }, error);
  }
}

async function loadSharp(): Promise<SharpFactory> {
  try {
    return (await import('sharp')).default;
  } catch (error) {
    throw intarsiaError(
      'UNIMPLEMENTED',
      'pictures need the optional package sharp, which is not installed here: run npm install sharp, or give the input as .json or .bin',
      {},
      error,
    );
  }
}
