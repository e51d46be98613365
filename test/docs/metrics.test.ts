import { readFileSync, readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { metricCatalogue } from '#core/metric-catalogue.js';
import { expectTable } from './markdown-table.js';
import type { MetricRow } from '#core/metric-catalogue.js';

const rows = Object.entries<MetricRow>(metricCatalogue);

function sources(folder: string): readonly string[] {
  return readdirSync(new URL(`../../${folder}`, import.meta.url), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.endsWith('metric-catalogue.ts'))
    .map((name) => readFileSync(new URL(`../../${folder}/${name}`, import.meta.url), 'utf8'));
}

describe('docs/metrics.md', () => {
  it('lists every metric of the catalogue with its type, unit and labels, and nothing else', () => {
    expectTable('metrics.md', 'metrics', [
      ['metric', 'type', 'unit', 'labels', 'meaning'],
      ...rows.map(([name, { type, unit, labels, help, buckets }]) => [
        `\`${name}\``,
        type,
        unit,
        labels.map((label) => `\`${label}\``).join(', '),
        buckets === undefined ? help : `${help} Buckets: ${buckets.join(', ')}, +Inf.`,
      ]),
    ]);
  });
});

describe('the metric catalogue', () => {
  it('names metrics as Prometheus does, and every histogram has ascending buckets', () => {
    for (const [name, { type, labels, help, buckets }] of rows) {
      expect(name).toMatch(/^(nv|intarsia)_[a-z0-9_]+$/);
      for (const label of labels) expect(label).toMatch(/^[a-z][a-z0-9_]*$/);
      expect(help, name).toMatch(/\.$/);
      if (name.startsWith('intarsia_') && type === 'counter') expect(name).toMatch(/_total$/);
      expect(type === 'histogram', name).toBe(buckets !== undefined);
      if (buckets !== undefined) expect([...buckets].sort((a, b) => a - b)).toEqual(buckets);
    }
  });

  it('holds no metric that nothing counts', () => {
    const text = [...sources('src'), ...sources('actors')].join('\n');
    expect(rows.map(([name]) => name).filter((name) => !text.includes(`'${name}'`))).toEqual([]);
  });
});
