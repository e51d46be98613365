/** Who uses the processors, as plans ask it. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { othersShare, processMs, processorTimes } from '#adapters/hardware/processor-times.js';

const isLinux = process.platform === 'linux';

describe('the times of processors', () => {
  it('leave to others what was work of neither of the processes asked for', () => {
    const before = { allMs: 1000, busyMs: 700, ownMs: 500 };
    expect(othersShare(before, { allMs: 2000, busyMs: 1300, ownMs: 900 })).toBeCloseTo(0.2, 12);
    // Ticks of a process and of a processor are not counted at the same moment.
    expect(othersShare(before, { allMs: 2000, busyMs: 1000, ownMs: 810 })).toBe(0);
    expect(othersShare(before, before)).toBe(0);
  });

  it.skipIf(!isLinux)('count the work of a process as its own (Linux: /proc)', () => {
    const [beforeMs, before] = [processMs(process.pid) ?? NaN, processorTimes([process.pid])];
    const startUs = process.cpuUsage();
    // Work, until the process itself is said to have done a quarter of a second of it.
    let text = '';
    while (process.cpuUsage(startUs).user < 250_000) text = readFileSync('/proc/stat', 'utf8') + text.slice(0, 1000);
    const afterMs = processMs(process.pid) ?? NaN;
    const after = processorTimes([process.pid]);
    expect(text).not.toBe('');
    expect(afterMs - beforeMs).toBeGreaterThanOrEqual(200);
    expect((after?.ownMs ?? NaN) - (before?.ownMs ?? NaN)).toBeGreaterThanOrEqual(200);
    // The processors' own count is taken at ticks: near enough, and never exact.
    expect((after?.busyMs ?? NaN) - (before?.busyMs ?? NaN)).toBeGreaterThanOrEqual(50);
    expect(after?.allMs).toBeGreaterThanOrEqual(after?.busyMs ?? NaN);
  });

  it('say nothing of a process that is gone', () => {
    // Beyond the largest process id that Linux gives.
    expect(processMs(2 ** 23)).toBeUndefined();
  });
});
