/**
 * What a device is: found by discovery, described by a hardware profile, priced, and shown wherever devices are shown.
 */
import type { DeviceId } from './ids.js';
import type { ExecutionProvider } from './provider.js';

export type DeviceKind = 'cpu' | 'gpu' | 'npu' | 'wasm' | 'remote' | 'emulated';

/** Where a figure comes from, so that a bill or a plan can be trusted as far as it deserves. */
export type FigureSource = 'measured' | 'profile' | 'configured' | 'estimated';

/** Price of having the device for an hour. */
export interface DevicePrice {
  /** United States dollars per hour. */
  readonly usdPerHour: number;
  readonly source: FigureSource;
  /** Where the figure was found, such as `profile nvidia-l4 (2026-08)` or `--price`. */
  readonly origin: string;
}

/** One accelerator or CPU pool, as discovery found it or the configuration declared it. */
export interface DeviceDescriptor {
  readonly id: DeviceId;
  readonly kind: DeviceKind;
  /** Name of the silicon as its driver tells it. */
  readonly name: string;
  readonly vendor: string;
  readonly provider: ExecutionProvider;
  /** Providers to try in order when the first cannot load a model; the reason is recorded. */
  readonly fallbackProviders: readonly ExecutionProvider[];
  readonly emulated: boolean;
  /** Bytes models may use on it. */
  readonly memoryBytes: number;
  /** Threads of one run on CPU-like devices; 0 elsewhere. */
  readonly threads: number;
  /** Batches that may be with the executor at once: 1 computes while the next is handed over. */
  readonly permits: number;
  /** Key of the hardware profile it was matched to, if any. */
  readonly profile?: string;
  /** Watts when busy, if known, and how we know. */
  readonly busyWatts?: { readonly watts: number; readonly source: FigureSource };
  readonly price?: DevicePrice;
  /** Free-form facts for people: driver, vector extensions, cores, bus address. */
  readonly facts: Readonly<Record<string, string | number | boolean>>;
}
