/**
 * As much of a WebAssembly assembler as one kernel needs: functions over i32 and v128, one exported memory. Instructions are
 * arrays of bytes, so that a function's body reads like its listing.
 */

export type Code = readonly number[];

/** Unsigned and signed LEB128. */
export function unsigned(value: number): number[] {
  const bytes: number[] = [];
  let left = value >>> 0;
  do {
    const low = left & 0x7f;
    left >>>= 7;
    bytes.push(left === 0 ? low : low | 0x80);
  } while (left !== 0);
  return bytes;
}

export function signed(value: number): number[] {
  const bytes: number[] = [];
  let left = value | 0;
  for (;;) {
    const low = left & 0x7f;
    left >>= 7;
    if ((left === 0 && (low & 0x40) === 0) || (left === -1 && (low & 0x40) !== 0)) return [...bytes, low];
    bytes.push(low | 0x80);
  }
}

export const valueType = { i32: 0x7f, v128: 0x7b } as const;

const simd = (code: number): number[] => [0xfd, ...unsigned(code)];
/** Alignment (log2) and offset of a memory access. */
const at = (align: number, offset: number): number[] => [align, ...unsigned(offset)];

export const get = (local: number): Code => [0x20, ...unsigned(local)];
export const set = (local: number): Code => [0x21, ...unsigned(local)];
export const tee = (local: number): Code => [0x22, ...unsigned(local)];
export const call = (index: number): Code => [0x10, ...unsigned(index)];
export const i32 = (value: number): Code => [0x41, ...signed(value)];
export const i32Add: Code = [0x6a];
export const i32Sub: Code = [0x6b];
/** A loop that goes around while its body leaves something other than 0 on the stack. */
export const loopWhile = (...body: Code[]): Code => [0x03, 0x40, ...body.flat(), 0x0d, 0x00, 0x0b];
/** Runs the body when the condition left something other than 0. */
export const ifTrue = (...body: Code[]): Code => [0x04, 0x40, ...body.flat(), 0x0b];

export const v128Load = (offset: number): Code => [...simd(0x00), ...at(2, offset)];
export const v128LoadSplat32 = (offset: number): Code => [...simd(0x09), ...at(2, offset)];
export const v128Store = (offset: number): Code => [...simd(0x0b), ...at(2, offset)];
export const f32x4Add: Code = simd(0xe4);
export const f32x4Mul: Code = simd(0xe6);
export const f32x4Div: Code = simd(0xe7);
export const f32x4Min: Code = simd(0xe8);
export const f32x4Max: Code = simd(0xe9);

/** Four times the same 32-bit number. */
export function f32x4(value: number): Code {
  const bytes = new Uint8Array(new Float32Array([value, value, value, value]).buffer);
  return [...simd(0x0c), ...bytes];
}

export interface WasmFunction {
  readonly params: readonly number[];
  readonly results: readonly number[];
  /** Types of the locals behind the parameters. */
  readonly locals: readonly number[];
  readonly body: Code;
  /** Name it is exported by; absent for one that only others of the module call. */
  readonly export?: string;
}

/** The module's bytes; its memory is exported as `memory`. Functions are numbered in their order. */
export function assemble(functions: readonly WasmFunction[], pages: number): Uint8Array<ArrayBuffer> {
  const vector = (items: readonly Code[]): number[] => [...unsigned(items.length), ...items.flat()];
  const section = (id: number, content: Code): number[] => [id, ...unsigned(content.length), ...content];
  const name = (text: string): number[] => vector(Array.from(text, (letter) => [letter.charCodeAt(0)]));
  const types = functions.map(({ params, results }) => [
    0x60,
    ...vector(params.map((type) => [type])),
    ...vector(results.map((type) => [type])),
  ]);
  const exported = functions.flatMap((each, index) =>
    each.export === undefined ? [] : [[...name(each.export), 0x00, ...unsigned(index)]],
  );
  const bodies = functions.map(({ locals, body }) => {
    const code = [...vector(locals.map((type) => [1, type])), ...body, 0x0b];
    return [...unsigned(code.length), ...code];
  });
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
    ...section(1, vector(types)),
    ...section(3, vector(functions.map((_, index) => unsigned(index)))),
    ...section(5, vector([[0x00, ...unsigned(pages)]])),
    ...section(7, vector([...exported, [...name('memory'), 0x02, 0x00]])),
    ...section(10, vector(bodies)),
  ]);
}
