/**
 * Draws digits: strokes of a random hand, bent, tilted, thickened, blurred and sprinkled with noise, on 28 × 28 pixels.
 *
 * Light strokes on dark ground, 0 to 1, row by row. The same seed draws the same digits: training, test and examples use
 * different streams, so that no picture is seen twice.
 */
import { digitHands } from './digit-strokes.js';
import type { RandomNumbers } from './random-numbers.js';

export const imageSide = 28;
export const imagePixels = imageSide * imageSide;

export interface DrawnDigits {
  /** `count` pictures one after another. */
  readonly images: Float32Array;
  /** The digit of each picture. */
  readonly labels: Uint8Array;
}

/** Draws `count` digits, as many of each as possible, in random order of hands and shapes. */
export function drawDigits(count: number, random: RandomNumbers): DrawnDigits {
  const images = new Float32Array(count * imagePixels);
  const labels = new Uint8Array(count);
  for (let index = 0; index < count; index += 1) {
    const digit = index % 10;
    labels[index] = digit;
    drawDigit(digit, random, images.subarray(index * imagePixels, (index + 1) * imagePixels));
  }
  return { images, labels };
}

/** Draws one digit into `image`, which holds `imagePixels` zeros. */
export function drawDigit(digit: number, random: RandomNumbers, image: Float32Array): void {
  const hands = digitHands[digit] ?? [];
  const path = hands[random.below(hands.length)] ?? '';
  const place = randomPlacement(random);
  const thickness = random.between(1.2, 4.4);
  const softness = random.between(0.6, 2);
  for (const stroke of flattenPath(path, random)) {
    let from: Point | undefined;
    for (const point of stroke) {
      const to = place(point);
      if (from !== undefined) drawLine(image, { from, to, thickness, softness });
      from = to;
    }
  }
  const brightness = random.between(0.6, 1);
  const noise = random.unit() < 0.5 ? 0 : random.between(0, 0.25);
  for (let at = 0; at < imagePixels; at += 1) {
    const value = (image[at] ?? 0) * brightness + (noise === 0 ? 0 : noise * (random.unit() + random.unit() - 1));
    image[at] = Math.min(1, Math.max(0, value));
  }
}

interface Point {
  readonly x: number;
  readonly y: number;
}

/** From the unit box to pixels: size, slant, rotation, a gentle wave, and a shift. */
function randomPlacement(random: RandomNumbers): (point: Point) => Point {
  const width = random.between(9, 20);
  const height = random.between(14, 23);
  const slant = random.between(-0.45, 0.35);
  const angle = random.between(-0.3, 0.3);
  const cos = Math.cos(angle);
  const sin = Math.sin(angle);
  const waveX = random.between(-0.08, 0.08);
  const waveY = random.between(-0.08, 0.08);
  const phase = random.between(0, 2 * Math.PI);
  const shiftX = random.between(-3, 3);
  const shiftY = random.between(-2.5, 2.5);
  return ({ x, y }) => {
    const bentX = x - 0.5 + waveX * Math.sin(2 * Math.PI * y + phase);
    const bentY = y - 0.5 + waveY * Math.sin(2 * Math.PI * x + phase);
    const wide = bentX * width - slant * bentY * height;
    const high = bentY * height;
    const centre = (imageSide - 1) / 2;
    return { x: centre + shiftX + wide * cos - high * sin, y: centre + shiftY + wide * sin + high * cos };
  };
}

const curvePieces = 10;

/** The strokes of a path as chains of points; each point of the path is moved a little first. */
function flattenPath(path: string, random: RandomNumbers): Point[][] {
  const words = path.split(' ');
  const strokes: Point[][] = [];
  let stroke: Point[] = [];
  let at = 0;
  const nextPoint = (): Point => {
    const x = Number(words[at]) + random.between(-0.06, 0.06);
    const y = Number(words[at + 1]) + random.between(-0.06, 0.06);
    at += 2;
    return { x, y };
  };
  while (at < words.length) {
    const command = words[at];
    at += 1;
    if (command === 'M') {
      stroke = [nextPoint()];
      strokes.push(stroke);
    } else if (command === 'L') {
      stroke.push(nextPoint());
    } else {
      const start = stroke.at(-1) ?? { x: 0, y: 0 };
      const [first, second, end] = [nextPoint(), nextPoint(), nextPoint()];
      for (let piece = 1; piece <= curvePieces; piece += 1)
        stroke.push(onCurve(start, first, second, end, piece / curvePieces));
    }
  }
  return strokes;
}

function onCurve(start: Point, first: Point, second: Point, end: Point, t: number): Point {
  const u = 1 - t;
  const [a, b, c, d] = [u * u * u, 3 * u * u * t, 3 * u * t * t, t * t * t];
  return {
    x: a * start.x + b * first.x + c * second.x + d * end.x,
    y: a * start.y + b * first.y + c * second.y + d * end.y,
  };
}

interface Line {
  readonly from: Point;
  readonly to: Point;
  /** Pixels. */
  readonly thickness: number;
  /** Pixels over which the edge fades. */
  readonly softness: number;
}

function drawLine(image: Float32Array, { from, to, thickness, softness }: Line): void {
  const reach = thickness / 2 + softness;
  const left = Math.max(0, Math.ceil(Math.min(from.x, to.x) - reach));
  const right = Math.min(imageSide - 1, Math.floor(Math.max(from.x, to.x) + reach));
  const top = Math.max(0, Math.ceil(Math.min(from.y, to.y) - reach));
  const bottom = Math.min(imageSide - 1, Math.floor(Math.max(from.y, to.y) + reach));
  const dx = to.x - from.x;
  const dy = to.y - from.y;
  const lengthSquared = dx * dx + dy * dy;
  for (let y = top; y <= bottom; y += 1) {
    for (let x = left; x <= right; x += 1) {
      const along = lengthSquared === 0 ? 0 : ((x - from.x) * dx + (y - from.y) * dy) / lengthSquared;
      const clamped = Math.min(1, Math.max(0, along));
      const awayX = x - from.x - clamped * dx;
      const awayY = y - from.y - clamped * dy;
      const distance = Math.sqrt(awayX * awayX + awayY * awayY);
      const ink = Math.min(1, Math.max(0, (reach - distance) / softness));
      const at = y * imageSide + x;
      if (ink > (image[at] ?? 0)) image[at] = ink;
    }
  }
}
