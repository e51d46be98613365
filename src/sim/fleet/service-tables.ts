/**
 * Service times of a model on a kind of silicon, by items of a batch: from a measured table where there is one, else from
 * the hardware profile by roofline (arithmetic at 0.6 of the peak, memory at 0.8, 3 µs a kernel).
 *
 * An estimate is a prior: it has the right order between devices, and is a few times off for any one model.
 */
import { intarsiaError } from '#core/errors.js';
import { estimateMs, type HardwareProfile } from '#core/hardware-profile.js';
import type { ServiceProfile } from '#core/scheduling/service-profile.js';

/** What a model costs to run, for devices without a measured table. */
export interface ModelWork {
  readonly flopsPerItem: number;
  /** Read once a run, whatever the batch. */
  readonly weightBytes: number;
  readonly activationBytesPerItem: number;
  readonly kernels: number;
}

/** Sizes of an estimated table: powers of two up to the largest batch, and that. */
export function tableSizes(itemsMax: number): readonly number[] {
  const sizes: number[] = [];
  for (let size = 1; size < itemsMax; size *= 2) sizes.push(size);
  sizes.push(itemsMax);
  return sizes;
}

/** @throws CONFIG_INVALID when the profile lacks arithmetic or bandwidth. */
export function estimatedTable(
  profile: HardwareProfile,
  work: ModelWork,
  itemsMax: number,
  spread: number,
): ServiceProfile {
  const batches = tableSizes(itemsMax);
  const { fp16Tflops, int8Tops } = profile.figures;
  // Silicon that only states INT8 does half as much in FP16.
  const known: HardwareProfile =
    fp16Tflops === undefined && int8Tops !== undefined
      ? { ...profile, figures: { ...profile.figures, fp16Tflops: { ...int8Tops, value: int8Tops.value / 2 } } }
      : profile;
  const ms = batches.map((items) => {
    const bytes = work.weightBytes + work.activationBytesPerItem * items;
    const time = estimateMs(known, { flops: work.flopsPerItem * items, bytes, kernels: work.kernels });
    if (time === undefined) {
      throw intarsiaError(
        'CONFIG_INVALID',
        `hardware profile ${profile.key} has no arithmetic or bandwidth: give the model a table of milliseconds for it`,
        { profile: profile.key },
      );
    }
    return time;
  });
  return { batches, ms, spread };
}
