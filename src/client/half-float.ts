/** The two 16-bit floating point formats as JavaScript numbers. Node 20 has no array type for either. */

const floatBits = new Float32Array(1);
const integerBits = new Uint32Array(floatBits.buffer);

/** IEEE 754 binary16 bits → number. */
export function numberOfFp16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Number → IEEE 754 binary16 bits, rounded to nearest, ties to even; too large becomes infinity. */
export function fp16OfNumber(value: number): number {
  if (Number.isNaN(value)) return 0x7e00;
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  // Halfway between the largest finite value (65504) and the next step rounds up to infinity.
  if (magnitude >= 65_520) return sign | 0x7c00;
  if (magnitude < 2 ** -14) return sign | roundHalfEven(magnitude * 2 ** 24);
  const exponent = Math.floor(Math.log2(magnitude));
  // log2 may be off by one next to a power of two.
  const scale = magnitude >= 2 ** (exponent + 1) ? exponent + 1 : magnitude < 2 ** exponent ? exponent - 1 : exponent;
  // A fraction that rounds up to 1024 carries into the exponent, as it should.
  return sign | (((scale + 15) << 10) + roundHalfEven((magnitude / 2 ** scale - 1) * 1024));
}

/** bfloat16 bits → number: the upper half of a float32. */
export function numberOfBf16(bits: number): number {
  integerBits[0] = bits << 16;
  return floatBits[0] ?? NaN;
}

/** Number → bfloat16 bits, rounded to nearest, ties to even. */
export function bf16OfNumber(value: number): number {
  if (Number.isNaN(value)) return 0x7fc0;
  floatBits[0] = value;
  const bits = integerBits[0] ?? 0;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest > 0.5) return floor + 1;
  if (rest < 0.5) return floor;
  return floor % 2 === 0 ? floor : floor + 1;
}
