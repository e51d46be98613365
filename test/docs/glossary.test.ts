import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';

const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
const entries = [...read('docs/glossary.md').matchAll(/^\| \*\*(.+?)\*\*/gm)].map(([, word]) => word!);

describe('docs/glossary.md', () => {
  it('explains every word that ARCHITECTURE.md defines', () => {
    const words = read('ARCHITECTURE.md').split('## Words')[1] ?? '';
    const defined = [...words.matchAll(/\*\*([a-z ]+)\*\*/g)].map(([, word]) => word!);
    expect(defined.length).toBeGreaterThan(10);
    const rest = ['model', 'version', 'variant', 'partition', 'SLO class', 'goodput'];
    expect([...defined, ...rest].filter((word) => !entries.includes(word))).toEqual([]);
  });

  it('has one entry per word, in alphabetical order', () => {
    const sorted = [...entries].sort((a, b) => a.localeCompare(b, 'en', { sensitivity: 'base' }));
    expect(entries).toEqual(sorted);
    expect(new Set(entries).size).toBe(entries.length - 1); // `core` is both a layer and a tier
  });
});
