/** CUDA_VISIBLE_DEVICES as CUDA reads it: which GPUs an operator left to this process. */
import type { NvidiaGpu } from '#core/device-discovery-nvidia.js';

/**
 * A test for visibility. Unset: all. A list of numbers or of beginnings of UUIDs: those up to the first entry that names
 * no GPU, as CUDA does; empty or `-1`: none. A MIG instance's UUID makes no whole GPU visible.
 */
export function visibleGpus(gpus: readonly NvidiaGpu[], variable: string | undefined): (gpu: NvidiaGpu) => boolean {
  if (variable === undefined) return () => true;
  const visible = new Set<string>();
  for (const entry of variable.split(',').map((text) => text.trim())) {
    const gpu = gpus.find(
      ({ index, uuid }) => String(index) === entry || (entry.startsWith('GPU-') && uuid.startsWith(entry)),
    );
    if (gpu === undefined) break;
    visible.add(gpu.uuid);
  }
  return (gpu) => visible.has(gpu.uuid);
}
