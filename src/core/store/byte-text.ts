/**
 * Keys as byte texts: strings with one character, 0 to 255, for each byte. Comparing two of them compares their bytes, which
 * is the order of keys in etcd, and they serve as keys of maps; plain ASCII is itself.
 */
const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: false });

/** The byte text of a text's UTF-8. */
export function byteText(text: string): string {
  for (let index = 0; index < text.length; index += 1) {
    if (text.charCodeAt(index) > 127) return byteTextOfBytes(encoder.encode(text));
  }
  return text;
}

export function byteTextOfBytes(bytes: Uint8Array): string {
  let text = '';
  for (let start = 0; start < bytes.length; start += 4096) {
    text += String.fromCharCode(...bytes.subarray(start, start + 4096));
  }
  return text;
}

export function bytesOfByteText(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index += 1) bytes[index] = text.charCodeAt(index);
  return bytes;
}

/** The text whose UTF-8 the byte text holds; what is not UTF-8 becomes U+FFFD. */
export function textOfByteText(text: string): string {
  for (let index = 0; index < text.length; index += 1) {
    if (text.charCodeAt(index) > 127) return decoder.decode(bytesOfByteText(text));
  }
  return text;
}

/** The end (exclusive) of the range of all keys that begin with the prefix, as etcd writes it; `\0` means no end. */
export function prefixEnd(prefix: string): string {
  for (let index = prefix.length - 1; index >= 0; index -= 1) {
    const code = prefix.charCodeAt(index);
    if (code < 255) return prefix.slice(0, index) + String.fromCharCode(code + 1);
  }
  return '\0';
}

/** Whether a key is in a range as etcd writes it: no end means the one key, `\0` means from the key on. */
export function isInRange(key: string, start: string, end: string): boolean {
  if (end === '') return key === start;
  return key >= start && (end === '\0' || key < end);
}
