/**
 * Curves of a training run as pictures: one SVG with a panel for each figure, and a page that shows it, with nothing to load.
 */
import { stages, type CurvePoint } from './training-plan.js';

const panelWidth = 420;
const panelHeight = 170;
const columns = 2;
const margin = { left: 58, right: 12, top: 26, bottom: 24 };
const stageColours: Readonly<Record<string, string>> = {
  rules: '#888888',
  imitation: '#3b6fb6',
  search: '#b5651d',
  optimisation: '#2e8b57',
};

interface Series {
  readonly name: string;
  readonly points: readonly { readonly at: number; readonly value: number; readonly stage: string }[];
}

/** One panel a figure, steps from left to right, coloured by stage. */
export function curvesSvg(curves: readonly CurvePoint[]): string {
  const all = seriesOf(curves);
  const rows = Math.max(1, Math.ceil(all.length / columns));
  const panels = all.map((series, index) => {
    const x = (index % columns) * panelWidth;
    const y = Math.floor(index / columns) * panelHeight;
    return `<g transform="translate(${x} ${y})">${panel(series, curves.length)}</g>`;
  });
  const [width, height] = [columns * panelWidth, rows * panelHeight];
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="11">
<rect width="${width}" height="${height}" fill="#ffffff"/>
${panels.join('\n')}
</svg>
`;
}

/** A page of its own with the picture and the figures of the best network. */
export function curvesPage(
  curves: readonly CurvePoint[],
  title: string,
  facts: Readonly<Record<string, string>>,
): string {
  const legend = stages
    .filter((stage) => stageColours[stage] !== undefined)
    .map((stage) => `<span style="color:${stageColours[stage]}">■ ${stage}</span>`);
  const rows = Object.entries(facts).map(
    ([name, value]) => `<tr><td>${escape(name)}</td><td>${escape(value)}</td></tr>`,
  );
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>${escape(title)}</title>
<style>body{font-family:sans-serif;margin:2em;max-width:60em}td{padding:0 1em 0.2em 0}svg{max-width:100%}</style></head>
<body><h1>${escape(title)}</h1>
<table>${rows.join('')}</table>
<p>${legend.join(' ')}</p>
${curvesSvg(curves)}</body></html>
`;
}

function seriesOf(curves: readonly CurvePoint[]): Series[] {
  const byName = new Map<string, { at: number; value: number; stage: string }[]>();
  for (const [at, { stage, values }] of curves.entries()) {
    for (const [name, value] of Object.entries(values)) {
      if (stage === 'rules' || !Number.isFinite(value)) continue;
      const points = byName.get(name) ?? [];
      points.push({ at, value, stage });
      byName.set(name, points);
    }
  }
  return [...byName].map(([name, points]) => ({ name, points }));
}

function panel({ name, points }: Series, steps: number): string {
  const values = points.map(({ value }) => value);
  const low = Math.min(...values);
  const high = Math.max(...values);
  const span = high > low ? high - low : Math.max(1e-9, Math.abs(high));
  const width = panelWidth - margin.left - margin.right;
  const height = panelHeight - margin.top - margin.bottom;
  const x = (at: number): string => (margin.left + (width * at) / Math.max(1, steps - 1)).toFixed(1);
  const y = (value: number): string => (margin.top + height * (1 - (value - low) / span)).toFixed(1);
  const parts = [
    `<text x="${margin.left}" y="15" font-weight="bold">${escape(name)}</text>`,
    `<text x="${margin.left - 6}" y="${margin.top + 4}" text-anchor="end">${shortNumber(high)}</text>`,
    `<text x="${margin.left - 6}" y="${margin.top + height + 4}" text-anchor="end">${shortNumber(low)}</text>`,
    `<rect x="${margin.left}" y="${margin.top}" width="${width}" height="${height}" fill="none" stroke="#cccccc"/>`,
  ];
  for (const stage of stages) {
    const own = points.filter((point) => point.stage === stage);
    const colour = stageColours[stage];
    if (own.length === 0 || colour === undefined) continue;
    const line = own.map(({ at, value }) => `${x(at)},${y(value)}`).join(' ');
    parts.push(`<polyline points="${line}" fill="none" stroke="${colour}" stroke-width="1.5"/>`);
    for (const { at, value } of own) parts.push(`<circle cx="${x(at)}" cy="${y(value)}" r="1.8" fill="${colour}"/>`);
  }
  return parts.join('');
}

function shortNumber(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 100_000)) return value.toExponential(1);
  return value.toFixed(size >= 100 ? 0 : size >= 1 ? 2 : 4);
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
