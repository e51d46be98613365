/**
 * A hardware profile: what one kind of silicon can do, draws and costs, each figure with its source. Used as a prior
 * where nothing was measured, for emulated devices, and to put a price on a receipt.
 *
 * Figures are dense (no structured sparsity). Prices and software change faster than silicon: a profile carries the month
 * it was checked, and `profileIsStale` says when to look again. Measurements always win over a profile.
 */
import type { DeviceKind } from './device.js';

/**
 * Where a figure was found. A: ai-dynamo/aiconfigurator system files. P: AWS prices, L: Lambda, U: RunPod, G: Google
 * Cloud, all per device from SkyPilot catalogue v8. 2, 4, 5: MLPerf Inference v2.1, v4.1, v5.1. Q: Qualcomm Cloud AI SDK.
 * N: AWS Neuron. T: Google Cloud TPU. H: Hot Chips 2024. W: a secondary web page. K: general knowledge, unconfirmed.
 * `file`: the operator's profiles file.
 */
export type ProfileSource = 'A' | 'P' | 'L' | 'U' | 'G' | '2' | '4' | '5' | 'Q' | 'N' | 'T' | 'H' | 'W' | 'K' | 'file';

/** One figure. A range is kept as `low` and `high`, and `value` is its middle. */
export interface ProfileFigure {
  readonly value: number;
  readonly low?: number;
  readonly high?: number;
  readonly sources: readonly ProfileSource[];
  /** What the founding documents said about the same thing, where they said something; see `stated`. */
  readonly statedValue?: string;
  readonly note?: string;
}

/** The unit of each figure a profile may have. */
export const profileFigureUnits = {
  memoryGiB: 'GiB',
  bandwidthGBs: 'GB/s',
  fp16Tflops: 'TFLOPS dense, FP16 or BF16',
  fp8Tflops: 'TFLOPS dense, FP8',
  int8Tops: 'TOPS dense, INT8',
  tdpWatts: 'W',
  usdPerHour: 'US dollars an hour, on demand',
  usdPerHourSpot: 'US dollars an hour, spot',
} as const;
export type ProfileFigureName = keyof typeof profileFigureUnits;
export const profileFigureNames = Object.keys(profileFigureUnits) as readonly ProfileFigureName[];

export type ProfileBenchmark =
  | 'resnet50-offline samples/s'
  | 'resnet50-single-stream-p90 ms'
  | 'bert99-offline samples/s'
  | 'bert99-single-stream-p90 ms'
  | 'llama2-70b-offline tokens/s'
  | 'llama3.1-8b-offline tokens/s'
  | 'sdxl-offline images/s'
  | 'server-power-8-devices W'
  | 'model-switch s';

/** A figure somebody measured and published, per device unless the note says otherwise. */
export interface MeasuredFigure {
  readonly benchmark: ProfileBenchmark;
  readonly value: number;
  readonly sources: readonly ProfileSource[];
  readonly note?: string;
}

/** A cell of the founding documents, as given, beside what is right. */
export interface StatedFigure {
  /** Name of the row there. */
  readonly row: string;
  readonly what: string;
  readonly statedValue: string;
  /** The figure of this profile that the cell is about, if there is one. */
  readonly figure?: ProfileFigureName;
  readonly correction: string;
}

export interface HardwareProfile {
  /** Stable key, such as `nvidia-l4`. */
  readonly key: string;
  readonly name: string;
  readonly vendor: string;
  readonly kind: Extract<DeviceKind, 'cpu' | 'gpu' | 'npu'>;
  /** Month the figures were checked, `YYYY-MM`. */
  readonly version: string;
  readonly figures: { readonly [Name in ProfileFigureName]?: ProfileFigure };
  readonly measured: readonly MeasuredFigure[];
  readonly stated: readonly StatedFigure[];
  /** Other places to rent it, US dollars per hour. */
  readonly otherPrices: readonly {
    readonly usdPerHour: number;
    readonly sources: readonly ProfileSource[];
    readonly note: string;
  }[];
  /**
   * How drivers name it: each text is a set of words that must all occur in the driver's name; a word with `-` in front
   * must not. Empty for silicon that is only looked up by key.
   */
  readonly matches: readonly string[];
  /** Logical cores the power and price of a processor profile stand for; absent for accelerators. */
  readonly logicalCores?: number;
  /** True for a class of silicon rather than a product. */
  readonly isClass: boolean;
  readonly note: string;
}

/** Profiles by key. */
export type ProfileBook = ReadonlyMap<string, HardwareProfile>;

/**
 * The profile whose words fit the driver's name best: most words first, then the order of the book.
 * Undefined rather than a neighbour: a wrong profile is worse than none.
 */
export function matchProfile(book: ProfileBook, driverName: string): HardwareProfile | undefined {
  const words = new Set(wordsOf(driverName));
  let best: HardwareProfile | undefined;
  let bestWords = 0;
  for (const profile of book.values()) {
    for (const text of profile.matches) {
      const wanted = text.toLowerCase().split(' ');
      // A slice of a GPU is not that GPU.
      if (words.has('mig') && !wanted.includes('mig')) continue;
      const matched = wanted.every((word) => (word.startsWith('-') ? !words.has(word.slice(1)) : words.has(word)));
      if (matched && wanted.length > bestWords) {
        best = profile;
        bestWords = wanted.length;
      }
    }
  }
  return best;
}

/** `Intel(R) Xeon(R) 6980P` → intel, xeon, 6980p. */
function wordsOf(name: string): readonly string[] {
  return name
    .toLowerCase()
    .replace(/\((r|tm|c)\)/g, ' ')
    .split(/[^a-z0-9.+]+/)
    .filter((word) => word !== '');
}

/** Months after which a profile should be looked at again. */
export const profileMonthsMax = 12;

/** Whether the profile is older than `profileMonthsMax` at that wall-clock moment. */
export function profileIsStale(profile: HardwareProfile, wallMs: number): boolean {
  const [year, month] = profile.version.split('-').map(Number);
  // 1970-01 is month 0; a mean month is precise enough for an expiry.
  const checked = ((year ?? 0) - 1970) * 12 + (month ?? 1) - 1;
  return wallMs / (30.436875 * 86_400_000) - checked > profileMonthsMax;
}

/**
 * Cold-start estimate of a piece of work on a profile, in milliseconds: the slower of arithmetic (0.6 of the peak) and
 * memory traffic (0.8 of the peak), plus 3 µs per kernel. Undefined when the profile lacks the figures.
 */
export function estimateMs(
  profile: HardwareProfile,
  work: { readonly flops: number; readonly bytes: number; readonly kernels: number },
): number | undefined {
  const { fp16Tflops, bandwidthGBs } = profile.figures;
  if (fp16Tflops === undefined || bandwidthGBs === undefined) return undefined;
  const arithmeticMs = work.flops / (0.6 * fp16Tflops.value * 1e9);
  const memoryMs = work.bytes / (0.8 * bandwidthGBs.value * 1e6);
  return Math.max(arithmeticMs, memoryMs) + 0.003 * work.kernels;
}
