/** Short names and keys written without an encoder: nearly all are ASCII, and an encoder costs a call outside of JavaScript. */

/** Writes `text` from `at` on, where there is room. False: a character is not ASCII, and what was written is to be ignored. */
export function writeAscii(text: string, buffer: Uint8Array, at: number): boolean {
  for (let index = 0; index < text.length; index += 1) {
    const unit = text.charCodeAt(index);
    if (unit >= 0x80) return false;
    buffer[at + index] = unit;
  }
  return true;
}
