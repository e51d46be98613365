/**
 * Short ASCII texts read from bytes: the same names and keys come again and again, so those read last are kept under a hash
 * of their bytes, and a text that is known costs no memory. Bounded; texts that share a place push each other out.
 */

/** Longer texts are not looked for. */
export const cachedTextBytesMax = 32;
const places = 2048;
const texts: string[] = Array.from({ length: places }, () => '');

/** The text of those bytes, at most `cachedTextBytesMax`; undefined when one of them is not ASCII. */
export function readShortAscii(source: Uint8Array, start: number, bytes: number): string | undefined {
  let hash = bytes;
  for (let index = start; index < start + bytes; index += 1) {
    const unit = source[index] as number;
    if (unit >= 0x80) return undefined;
    hash = Math.imul(hash ^ unit, 0x01000193);
  }
  const place = (hash ^ (hash >>> 13)) & (places - 1);
  const known = texts[place] as string;
  if (known.length === bytes && isText(known, source, start)) return known;
  const text = textOf(source, start, bytes);
  texts[place] = text;
  return text;
}

function isText(text: string, source: Uint8Array, start: number): boolean {
  for (let index = 0; index < text.length; index += 1) {
    if (text.charCodeAt(index) !== source[start + index]) return false;
  }
  return true;
}

function textOf(source: Uint8Array, start: number, bytes: number): string {
  let text = '';
  for (let index = start; index < start + bytes; index += 1) text += String.fromCharCode(source[index] as number);
  return text;
}
