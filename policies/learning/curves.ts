/**
 * Curves of a training run as pictures: one SVG with a panel for each group of figures, and a page that shows it, with nothing
 * to load. Figures of one unit share a panel, a line each; the ground tells the stages apart. What never moved is a row of a table.
 */
import { stages, type CurvePoint } from './training-plan.js';

const panelWidth = 470;
const panelHeight = 220;
const columns = 2;
const margin = { left: 58, right: 14, top: 28, bottom: 52 };
const lineColours = ['#2f6fb0', '#b3541e', '#3a7d44', '#7b4ba0', '#a8851a'] as const;
const stageGrounds: Readonly<Record<string, string>> = {
  imitation: '#eef3fa',
  search: '#fbf2e9',
  optimisation: '#ecf6ef',
};

interface Group {
  readonly title: string;
  /** A figure belongs to the first group that knows its name, and is drawn under what is left of the name. */
  readonly label: (name: string) => string | undefined;
  /** Shares are shown in percent. */
  readonly isShare: boolean;
}

const groups: readonly Group[] = [
  {
    title: 'Objective against the best rule in hindsight, % (lower is better)',
    label: (name) =>
      name === 'validation gain' ? 'validation' : name.endsWith(' against best rule') ? name.split(' ')[0] : undefined,
    isShare: true,
  },
  { title: 'Targets missed on validation, %', label: after('validation misses '), isShare: true },
  { title: 'Targets missed in training, %', label: after('misses '), isShare: true },
  {
    title: 'Price of a miss, by which training raises the reward of being in time',
    label: after('price of a miss '),
    isShare: false,
  },
];

function after(prefix: string): (name: string) => string | undefined {
  return (name) => (name.startsWith(prefix) ? name.slice(prefix.length) : undefined);
}

interface Point {
  readonly at: number;
  readonly value: number;
}

interface Series {
  readonly label: string;
  readonly points: readonly Point[];
}

interface Panel {
  readonly title: string;
  readonly isShare: boolean;
  readonly lines: readonly Series[];
}

/** Panels of what moved, steps from left to right. */
export function curvesSvg(curves: readonly CurvePoint[]): string {
  const panels = panelsOf(curves).filter(moves);
  const rows = Math.max(1, Math.ceil(panels.length / columns));
  const drawn = panels.map((each, index) => {
    const x = (index % columns) * panelWidth;
    const y = Math.floor(index / columns) * panelHeight;
    return `<g transform="translate(${x} ${y})">${draw(each, curves)}</g>`;
  });
  const [width, height] = [columns * panelWidth, rows * panelHeight];
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="11">
<rect width="${width}" height="${height}" fill="#ffffff"/>
${drawn.join('\n')}
</svg>
`;
}

/** A page of its own with the picture and the figures of the best network. */
export function curvesPage(
  curves: readonly CurvePoint[],
  title: string,
  facts: Readonly<Record<string, string>>,
): string {
  const still = panelsOf(curves)
    .filter((each) => !moves(each))
    .flatMap(({ title: name, isShare, lines }) =>
      lines.map(({ label, points }): readonly [string, string] => [
        label === '' ? name : `${name}: ${label}`,
        shortNumber(points[0]?.value ?? 0, isShare),
      ]),
    );
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>${escape(title)}</title>
<style>body{font-family:sans-serif;margin:2em;max-width:${columns * panelWidth}px}td{padding:0 1em 0.2em 0}svg{max-width:100%}</style></head>
<body><h1>${escape(title)}</h1>
${table(Object.entries(facts))}
${curvesSvg(curves)}
${still.length === 0 ? '' : `<h2>The same in every step, or measured once</h2>\n${table(still)}`}</body></html>
`;
}

function table(rows: readonly (readonly [string, string])[]): string {
  return `<table>${rows.map(([name, value]) => `<tr><td>${escape(name)}</td><td>${escape(value)}</td></tr>`).join('')}</table>`;
}

function panelsOf(curves: readonly CurvePoint[]): Panel[] {
  const panels = new Map<string, { isShare: boolean; lines: Map<string, Point[]> }>();
  for (const [at, { stage, values }] of curves.entries()) {
    for (const [name, value] of Object.entries(values)) {
      if (stage === 'rules' || !Number.isFinite(value)) continue;
      const group = groups.find(({ label }) => label(name) !== undefined);
      const title = group?.title ?? name;
      const panel = panels.get(title) ?? { isShare: group?.isShare ?? false, lines: new Map<string, Point[]>() };
      panels.set(title, panel);
      const label = group?.label(name) ?? '';
      const points = panel.lines.get(label) ?? [];
      points.push({ at, value });
      panel.lines.set(label, points);
    }
  }
  return [...panels].map(([title, { isShare, lines }]) => ({
    title,
    isShare,
    lines: [...lines].map(([label, points]) => ({ label, points })),
  }));
}

function moves({ lines }: Panel): boolean {
  return lines.some(({ points }) => points.some(({ value }) => value !== points[0]?.value));
}

function draw({ title, isShare, lines }: Panel, curves: readonly CurvePoint[]): string {
  const values = lines.flatMap(({ points }) => points.map(({ value }) => value));
  const low = Math.min(...values, ...(isShare ? [0] : []));
  const high = Math.max(...values, ...(isShare ? [0] : []));
  const width = panelWidth - margin.left - margin.right;
  const height = panelHeight - margin.top - margin.bottom;
  const [bottom, right] = [margin.top + height, margin.left + width];
  const across = (at: number): number => margin.left + (width * (at + 0.5)) / curves.length;
  const up = (value: number): number => margin.top + height * (1 - (value - low) / (high - low));
  const parts = [
    `<text x="${margin.left}" y="15" font-weight="bold">${escape(title)}</text>`,
    ...grounds(curves, across, height),
    `<text x="${margin.left - 6}" y="${margin.top + 4}" text-anchor="end">${shortNumber(high, isShare)}</text>`,
    `<text x="${margin.left - 6}" y="${bottom + 4}" text-anchor="end">${shortNumber(low, isShare)}</text>`,
    `<text x="${margin.left}" y="${bottom + 14}">1</text>`,
    `<text x="${right}" y="${bottom + 14}" text-anchor="end">step ${curves.length}</text>`,
    `<rect x="${margin.left}" y="${margin.top}" width="${width}" height="${height}" fill="none" stroke="#cccccc"/>`,
  ];
  if (low < 0 && high > 0) {
    const zero = up(0).toFixed(1);
    parts.push(
      `<line x1="${margin.left}" x2="${right}" y1="${zero}" y2="${zero}" stroke="#888888" stroke-dasharray="3 3"/>`,
    );
  }
  for (const [index, { label, points }] of lines.entries()) {
    const colour = lineColours[index % lineColours.length] ?? lineColours[0];
    const spots = points.map(({ at, value }) => [across(at).toFixed(1), up(value).toFixed(1)] as const);
    parts.push(`<polyline points="${spots.join(' ')}" fill="none" stroke="${colour}" stroke-width="1.5"/>`);
    for (const [x, y] of spots) parts.push(`<circle cx="${x}" cy="${y}" r="1.8" fill="${colour}"/>`);
    if (label !== '')
      parts.push(
        `<text x="${margin.left + index * 100}" y="${bottom + 30}" fill="${colour}">■ ${escape(label)}</text>`,
      );
  }
  return parts.join('');
}

/** A ground under each stage, with its name. */
function grounds(curves: readonly CurvePoint[], across: (at: number) => number, height: number): string[] {
  const step = across(1) - across(0);
  return stages.flatMap((stage) => {
    const steps = curves.flatMap((point, at) => (point.stage === stage ? [at] : []));
    const [first, last] = [steps[0], steps.at(-1)];
    const ground = stageGrounds[stage];
    if (first === undefined || last === undefined || ground === undefined) return [];
    const left = across(first) - step / 2;
    const width = step * (last - first + 1);
    const name =
      width < 70 ? '' : `<text x="${(left + 4).toFixed(1)}" y="${margin.top + 12}" fill="#777777">${stage}</text>`;
    return [
      `<rect x="${left.toFixed(1)}" y="${margin.top}" width="${width.toFixed(1)}" height="${height}" fill="${ground}"/>${name}`,
    ];
  });
}

function shortNumber(value: number, isShare: boolean): string {
  if (isShare) return `${(100 * value).toFixed(Math.abs(value) < 0.1 && value !== 0 ? 2 : 1)} %`;
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 100_000)) return value.toExponential(1);
  return value.toFixed(Number.isInteger(value) || size >= 100 ? 0 : size >= 1 ? 2 : 4);
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
