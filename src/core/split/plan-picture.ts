/**
 * A plan as a picture (SVG): a column for each stage with the nodes it runs in order, arrows between with the tensors that
 * cross and their bytes. Nodes are gathered into blocks, so that a graph of thousands stays readable. Plain text and
 * boxes: no scripts, no fonts to load; names from files are escaped.
 */
import { formatBytes, formatMs } from '../units.js';
import type { Cutter } from './cut.js';
import type { SplitNode } from './graph.js';
import type { ExplainedRow, ExplainedStage } from './plan-explain.js';

/** Blocks of one column. */
const blocksMax = 18;
const crossingsShown = 3;
const columnWidth = 270;
const gapWidth = 190;
const blockHeight = 34;
const blockGap = 10;
const headHeight = 114;
const margin = 24;

/** One hue a stage, told apart also in grey by their place. */
const colours = ['#2f6fb0', '#b3541e', '#3a7d44', '#7b4ba0', '#a8851a', '#2b8a8a', '#a83a5b', '#5b6470'] as const;

interface Block {
  readonly from: number;
  readonly to: number;
  readonly words: string;
  readonly detail: string;
}

/** `sizes`: bytes of a value in one run; undefined where nobody knows. */
export function drawPlan(
  { model, items }: { readonly model: string; readonly items: number },
  row: ExplainedRow,
  cutter: Cutter,
  sizes: (name: string) => number | undefined = () => undefined,
): string {
  const { nodes } = cutter.graph;
  const columns = row.stages.map((stage) => blocksOf(nodes.slice(stage.from, stage.to)));
  const rows = Math.max(1, ...columns.map(({ length }) => length));
  const width = 2 * margin + columns.length * columnWidth + (columns.length - 1) * gapWidth;
  const bodyTop = 84;
  const height = bodyTop + headHeight + rows * (blockHeight + blockGap) + margin;
  const cuts = row.strategy === 'data' ? [] : row.stages.slice(1).map(({ from }) => from);
  const crossings = row.strategy === 'data' ? [] : cutter.cut(cuts).crossings;
  const parts: string[] = [];
  for (const [index, stage] of row.stages.entries()) {
    const left = margin + index * (columnWidth + gapWidth);
    const colour = colours[index % colours.length] ?? colours[0];
    parts.push(column(stage, columns[index] ?? [], { index, left, top: bodyTop, colour, row }));
    if (index === row.stages.length - 1 || row.strategy === 'data') continue;
    const passing = crossings.filter(({ from, to }) => from <= index && (to.at(-1) ?? 0) > index);
    const lines = passing.slice(0, crossingsShown).map(({ name }) => {
      const bytes = sizes(name);
      return bytes === undefined ? shortened(name, 26) : `${shortened(name, 17)} ${formatBytes(bytes)}`;
    });
    if (passing.length > crossingsShown) lines.push(`and ${passing.length - crossingsShown} more`);
    const labels = [`${formatBytes(stage.sendsBytes)} · ${formatMs(stage.sendsMs.value)}`, ...lines];
    parts.push(arrow(left + columnWidth, bodyTop + headHeight / 2, labels));
  }
  const title = `${shortened(model.split(/[/\\]/).at(-1) ?? model, 60)}: ${titleOf(row)}`;
  const figures = [
    `latency ${formatMs(row.latencyMs.value)} ± ${percent(row.latencyMs.plusMinus)}`,
    `${Number(row.requestsPerSecond.value.toPrecision(3))} requests/s ± ${percent(row.requestsPerSecond.plusMinus)}`,
    ...(items > 1 ? [`${items} items a request`] : []),
    ...(row.batch > 1 ? [`runs of ${row.batch} items`] : []),
  ].join(' · ');
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif">`,
    '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto"><path d="M0 0 10 5 0 10z" fill="#555"/></marker></defs>',
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    text(margin, 36, title, { size: 20, weight: 600, fill: '#222', width: width - 2 * margin }),
    text(margin, 60, figures, { size: 14, fill: '#555', width: width - 2 * margin }),
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}

function titleOf({ strategy, stages }: ExplainedRow): string {
  if (strategy === 'whole') return 'not split';
  return strategy === 'data' ? `whole on ${stages.length} devices` : `${stages.length} stages`;
}

function column(
  stage: ExplainedStage,
  blocks: readonly Block[],
  place: {
    readonly index: number;
    readonly left: number;
    readonly top: number;
    readonly colour: string;
    readonly row: ExplainedRow;
  },
): string {
  const { index, left, top, colour, row } = place;
  const height = headHeight + blocks.length * (blockHeight + blockGap);
  const sure = stage.ms.source === 'measured' ? 'measured' : 'estimated';
  const devices = stage.devices.join(', ');
  const head = [
    `${formatMs(stage.ms.value)} ± ${percent(stage.ms.plusMinus)} ${sure}${stage.emulated ? ' (emulated)' : ''}`,
    `${formatBytes(stage.memoryBytes)} · nodes ${stage.from} to ${stage.to - 1}`,
    ...(row.strategy === 'data' ? [`${percent(stage.share)} of the work`] : []),
  ];
  const width = columnWidth - 28;
  const parts = [
    `<rect x="${left}" y="${top}" width="${columnWidth}" height="${height}" rx="8" fill="${colour}" fill-opacity="0.08" stroke="${colour}"${stage.emulated ? ' stroke-dasharray="6 4"' : ''}/>`,
    text(left + 14, top + 24, row.strategy === 'data' ? devices : `Stage ${index + 1}: ${devices}`, {
      size: 15,
      weight: 600,
      fill: colour,
      width,
    }),
    ...head.map((line, at) => text(left + 14, top + 45 + at * 19, line, { size: 13, fill: '#333', width })),
  ];
  for (const [at, block] of blocks.entries()) {
    const y = top + headHeight - 20 + at * (blockHeight + blockGap);
    const middle = left + columnWidth / 2;
    if (at > 0) {
      parts.push(`<path d="M${middle} ${y - blockGap} V${y}" stroke="#999" stroke-width="1.2"/>`);
    }
    parts.push(
      `<rect x="${left + 14}" y="${y}" width="${columnWidth - 28}" height="${blockHeight}" rx="5" fill="#fff" stroke="${colour}" stroke-opacity="0.5"/>`,
      text(left + 22, y + 15, block.words, { size: 12, fill: '#222', width: columnWidth - 44 }),
      text(left + 22, y + 28, block.detail, { size: 10, fill: '#777', width: columnWidth - 44 }),
    );
  }
  return parts.join('\n');
}

function arrow(left: number, y: number, labels: readonly string[]): string {
  const middle = left + gapWidth / 2;
  return [
    `<path d="M${left + 6} ${y} H${left + gapWidth - 6}" stroke="#555" stroke-width="2" marker-end="url(#head)"/>`,
    ...labels.map((label, index) =>
      text(middle, index === 0 ? y - 10 : y + 4 + index * 16, label, {
        size: index === 0 ? 13 : 11,
        weight: index === 0 ? 600 : 400,
        fill: '#444',
        width: gapWidth - 12,
        anchor: 'middle',
      }),
    ),
  ].join('\n');
}

/** Nodes in order, gathered: each alone where they are few. */
function blocksOf(nodes: readonly SplitNode[]): readonly Block[] {
  if (nodes.length <= blocksMax) {
    return nodes.map(({ index, operator, view }) => ({
      from: index,
      to: index + 1,
      words: operator,
      detail: view.name === '' ? `node ${index}` : `node ${index}: ${view.name}`,
    }));
  }
  const blocks: Block[] = [];
  for (let block = 0; block < blocksMax; block += 1) {
    const part = nodes.slice(
      Math.floor((block * nodes.length) / blocksMax),
      Math.floor(((block + 1) * nodes.length) / blocksMax),
    );
    const counts = new Map<string, number>();
    for (const { operator } of part) counts.set(operator, (counts.get(operator) ?? 0) + 1);
    const words = [...counts]
      .sort((a, b) => b[1] - a[1])
      .map(([name, count]) => (count === 1 ? name : `${name} ×${count}`));
    const [from = 0, to = 0] = [part[0]?.index, part.at(-1)?.index];
    blocks.push({
      from,
      to: to + 1,
      words: words.slice(0, 4).join(', ') + (words.length > 4 ? ' …' : ''),
      detail: from === to ? `node ${from}` : `nodes ${from} to ${to}`,
    });
  }
  return blocks;
}

interface TextStyle {
  readonly size: number;
  readonly fill: string;
  readonly weight?: number;
  readonly anchor?: 'middle';
  /** Room, px: longer text is cut short. */
  readonly width: number;
}

function text(x: number, y: number, words: string, { size, fill, weight = 400, anchor, width }: TextStyle): string {
  // A letter takes a little more than half of its height.
  const room = Math.max(4, Math.floor(width / (size * (weight > 400 ? 0.58 : 0.54))));
  const attributes = `x="${x}" y="${y}" font-size="${size}" fill="${fill}"${weight === 400 ? '' : ` font-weight="${weight}"`}${anchor === undefined ? '' : ` text-anchor="${anchor}"`}`;
  return `<text ${attributes}>${escaped(shortened(words, room))}</text>`;
}

function shortened(words: string, letters: number): string {
  return words.length <= letters ? words : `${words.slice(0, letters - 1)}…`;
}

/** No markup, and no characters that XML forbids. */
function escaped(words: string): string {
  return Array.from(words, (letter) => {
    const code = letter.codePointAt(0) ?? 0;
    if (code < 32 || (code >= 0xd800 && code <= 0xdfff) || code === 0xfffe || code === 0xffff) return '\ufffd';
    return { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }[letter] ?? letter;
  }).join('');
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}
