/**
 * The few globals that every JavaScript runtime has and that layers without Node's types may use: text encoding,
 * cancellation and WebAssembly are pure, or are handed in. Timers, clocks and random numbers are deliberately absent.
 */
interface TextEncoderLike {
  encode(text: string): Uint8Array<ArrayBuffer>;
  encodeInto(text: string, into: Uint8Array): { read: number; written: number };
}
interface TextDecoderLike {
  decode(bytes?: Uint8Array): string;
}
declare const TextEncoder: new () => TextEncoderLike;
declare const TextDecoder: new (label?: string, options?: { fatal?: boolean; ignoreBOM?: boolean }) => TextDecoderLike;
