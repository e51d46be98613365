import { describe, expect, it } from 'vitest';
import { run } from '#bench/memory-growth.js';
import { procThere } from './running-host.js';

describe.skipIf(!procThere)('memory of a host (skipped without /proc)', () => {
  it('idle it takes at most 120 MiB above Node with ONNX Runtime, and a few thousand requests leave little', async () => {
    const { rows } = await run({ quick: true });
    const mib = new Map(rows.map(({ key, value }) => [key, value]));
    expect(mib.get('memory.idle.above')).toBeLessThanOrEqual(120);
    // So few requests leave the heap growing still; what leaks tensors would show.
    const first = mib.get('memory.loaded.first') ?? NaN;
    expect((mib.get('memory.loaded.last') ?? NaN) - first).toBeLessThan(100);
  }, 120_000);
});
