import { describe, expect, it } from 'vitest';
import { CrashAttribution, defaultQuarantineRule, type Activity } from '#actors/device/crash-attribution.js';
import type { ArtifactDigest } from '#core/ids.js';

const [a, b] = ['a', 'b'] as unknown as [ArtifactDigest, ArtifactDigest];
const running = (...digests: ArtifactDigest[]): Map<ArtifactDigest, Activity> =>
  new Map(digests.map((each) => [each, 'run']));

describe('crash attribution', () => {
  it('quarantines what crashed alone three times within ten minutes', () => {
    const attribution = new CrashAttribution(defaultQuarantineRule);
    expect(attribution.crashed(running(a), 0)).toBeUndefined();
    expect(attribution.crashed(running(a), 1000)).toBeUndefined();
    expect(attribution.crashed(running(a), 599_999)).toBe(a);
    expect([attribution.isQuarantined(a), attribution.isQuarantined(b)]).toEqual([true, false]);
    attribution.pardon(a);
    expect(attribution.isQuarantined(a)).toBe(false);
  });

  it('forgets crashes older than that', () => {
    const attribution = new CrashAttribution(defaultQuarantineRule);
    attribution.crashed(running(a), 0);
    attribution.crashed(running(a), 1000);
    expect(attribution.crashed(running(a), 600_001)).toBeUndefined();
    expect(attribution.crashed(running(a), 600_002)).toBe(a);
  });

  it('blames nobody when several were in flight, or none, and has suspects run alone', () => {
    const attribution = new CrashAttribution(defaultQuarantineRule);
    for (let crash = 0; crash < 5; crash += 1) expect(attribution.crashed(running(a, b), crash)).toBeUndefined();
    expect(attribution.crashed(new Map(), 5)).toBeUndefined();
    expect([attribution.onProbation(a), attribution.onProbation(b)]).toEqual([true, true]);
  });

  it('clears a suspect by one run after the first crash, by more after further ones', () => {
    const attribution = new CrashAttribution(defaultQuarantineRule);
    attribution.crashed(running(a, b), 0);
    attribution.survived(a, 'run');
    expect([attribution.onProbation(a), attribution.onProbation(b)]).toEqual([false, true]);
    attribution.crashed(running(a, b), 1);
    for (let run = 1; run < 8; run += 1) attribution.survived(a, 'run');
    expect(attribution.onProbation(a)).toBe(true);
    attribution.survived(a, 'run');
    expect(attribution.onProbation(a)).toBe(false);
  });

  it('does not clear by a load who crashed in a run', () => {
    const attribution = new CrashAttribution(defaultQuarantineRule);
    attribution.crashed(running(a), 0);
    attribution.survived(a, 'load');
    expect(attribution.onProbation(a)).toBe(true);
    attribution.crashed(new Map([[b, 'load']]), 0);
    attribution.survived(b, 'load');
    expect(attribution.onProbation(b)).toBe(false);
  });
});
