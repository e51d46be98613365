/**
 * The kernel of learned decisions in WebAssembly SIMD: a dense layer over many rows, 16 outputs at a time, tanh included.
 * WebAssembly because it adds four numbers an instruction and compiles to the same sums on every machine.
 *
 * tanh is the rational function that Eigen and ONNX Runtime use for 32-bit numbers: error below 1e-6, exact in sign, NaN stays
 * NaN.
 */
import {
  assemble,
  call,
  f32x4,
  f32x4Add,
  f32x4Div,
  f32x4Max,
  f32x4Min,
  f32x4Mul,
  get,
  i32,
  i32Add,
  i32Sub,
  ifTrue,
  loopWhile,
  set,
  tee,
  v128Load,
  v128LoadSplat32,
  v128Store,
  valueType,
  type Code,
} from './wasm-text.js';

/** The part of WebAssembly that is pure: neither the browser's types nor Node's are there in this layer. */
declare const WebAssembly: {
  readonly Module: new (bytes: Uint8Array<ArrayBuffer>) => object;
  readonly Instance: new (module: object) => { readonly exports: Readonly<Record<string, unknown>> };
};
interface WasmMemory {
  readonly buffer: ArrayBuffer;
  grow(pages: number): number;
}

const { i32: int, v128: vector } = valueType;

const odd = [
  -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-8, 1.48572235717979e-5,
  6.37261928875436e-4, 4.89352455891786e-3,
];
const even = [1.19825839466702e-6, 1.18534705686654e-4, 2.26843463243902e-3, 4.89352518554385e-3];
/** Beyond it tanh is 1 in 32 bits. */
const flatFrom = 7.90531110763549805;

/** tanh of four numbers: x · P(x²) / Q(x²), by Horner. */
function tanhFunction(): { params: number[]; results: number[]; locals: number[]; body: Code } {
  const [x, square] = [0, 1];
  const horner = (coefficients: readonly number[]): Code =>
    coefficients
      .map((coefficient, index): Code =>
        index === 0 ? f32x4(coefficient) : [...get(square), ...f32x4Mul, ...f32x4(coefficient), ...f32x4Add],
      )
      .flat();
  return {
    params: [vector],
    results: [vector],
    locals: [vector],
    body: [
      ...[...get(x), ...f32x4(flatFrom), ...f32x4Min, ...f32x4(-flatFrom), ...f32x4Max, ...tee(x)],
      ...[...get(x), ...f32x4Mul, ...set(square)],
      ...[...horner(odd), ...get(x), ...f32x4Mul],
      ...[...horner(even), ...f32x4Div],
    ],
  };
}

/** Outputs computed at a time; layers are padded to a multiple. */
export const blockOutputs = 16;
const blockBytes = 4 * blockOutputs;

/**
 * dense(rows at, count, bytes from row to row, inputs, weights at, bias at, result at, blocks, tanh): for every row and block
 * the bias plus the sum over inputs of input times weights. Weights lie block by block, in each block input by input.
 */
function denseFunction(): { params: number[]; results: number[]; locals: number[]; body: Code; export: string } {
  const [source, rows, stride, inputs, weights, bias, result, blocks, curved] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
  const [block, left, input, weight, biasAt, x] = [9, 10, 11, 12, 13, 14];
  const sums = [15, 16, 17, 18];
  const step = (local: number, by: number): Code => [...get(local), ...i32(by), ...i32Add, ...set(local)];
  const down = (local: number): Code => [...get(local), ...i32(1), ...i32Sub, ...tee(local)];
  const each = (code: (sum: number, offset: number) => Code): Code =>
    sums.flatMap((sum, index) => code(sum, 16 * index));
  return {
    export: 'dense',
    params: [int, int, int, int, int, int, int, int, int],
    results: [],
    locals: [int, int, int, int, int, vector, vector, vector, vector, vector],
    body: loopWhile(
      [...get(blocks), ...set(block), ...get(weights), ...set(weight), ...get(bias), ...set(biasAt)],
      loopWhile(
        each((sum, offset) => [...get(biasAt), ...v128Load(offset), ...set(sum)]),
        [...get(source), ...set(input), ...get(inputs), ...set(left)],
        loopWhile(
          [...get(input), ...v128LoadSplat32(0), ...set(x)],
          each((sum, offset) => [
            ...[...get(sum), ...get(x), ...get(weight), ...v128Load(offset)],
            ...[...f32x4Mul, ...f32x4Add, ...set(sum)],
          ]),
          step(input, 4),
          step(weight, blockBytes),
          down(left),
        ),
        [...get(curved), ...ifTrue(each((sum) => [...get(sum), ...call(0), ...set(sum)]))],
        each((sum, offset) => [...get(result), ...get(sum), ...v128Store(offset)]),
        step(result, blockBytes),
        step(biasAt, blockBytes),
        down(block),
      ),
      [...get(source), ...get(stride), ...i32Add, ...set(source)],
      down(rows),
    ),
  };
}

export type Dense = (
  rowsAt: number,
  count: number,
  strideBytes: number,
  inputs: number,
  weightsAt: number,
  biasAt: number,
  resultAt: number,
  blocks: number,
  tanh: number,
) => void;

let compiled: object | undefined;

/** A fresh instance with memory of its own, at least so many bytes. */
export function simdKernel(bytes: number): { readonly dense: Dense; readonly memory: Float32Array<ArrayBuffer> } {
  compiled ??= new WebAssembly.Module(assemble([tanhFunction(), denseFunction()], 1));
  const { exports } = new WebAssembly.Instance(compiled);
  const memory = exports['memory'] as WasmMemory;
  const pages = Math.ceil(bytes / 65_536);
  if (pages > 1) memory.grow(pages - 1);
  return { dense: exports['dense'] as Dense, memory: new Float32Array(memory.buffer) };
}
