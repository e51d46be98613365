/** The benchmark of actors at its smallest, so that it does not rot; it checks its own sums. No speed is asserted. */
import { describe, expect, it } from 'vitest';
import { run } from '#bench/actors.js';

describe('benchmark of actors', () => {
  it('runs at its smallest and reports every contestant and both ratios of each round', async () => {
    const { name, rows, environment } = await run({ quick: true });
    expect(name).toBe('actors');
    for (const round of ['tell', 'ask-1', 'ask-100']) {
      for (const column of ['intarsia', 'nact', 'bare array', 'ratio-to-nact', 'ratio-to-array']) {
        expect(rows.find(({ key }) => key === `${round}.${column}`)?.value).toBeGreaterThan(0);
      }
    }
    expect(environment.node).toBe(process.version);
  });
});
