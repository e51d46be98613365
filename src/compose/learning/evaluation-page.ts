/** An evaluation as one page that loads nothing: who won where, by how much, the stress suite, and money against misses. */
import type { EvaluationCellReport, EvaluationPareto, EvaluationReport } from '#cli/evaluation-report.js';

const width = 640;
const height = 420;
const margin = { left: 70, right: 160, top: 20, bottom: 45 };

export function evaluationPage(report: EvaluationReport): string {
  const { cells, overall, verdicts, stress, pareto, classes, isDone } = report;
  const parts = [
    '<h1>Evaluation of dispatch policies</h1>',
    isDone ? '' : '<p><b>Stopped before its end: what follows is what was done.</b></p>',
    '<p>Change is that of the objective against the best rule of each cell, chosen in hindsight; lower is better.</p>',
    '<h2>Over all cells</h2>',
    table(
      ['policy', 'cells', 'change', '95 %', 'worst cell', 'gap closed', 'fallback', 'mask violations'],
      overall.map((each) => [
        each.contender,
        String(each.cells),
        percent(each.change),
        `${percent(each.changeLow)} to ${percent(each.changeHigh)}`,
        `${each.worstCell}: ${percent(each.worstChange)}`,
        each.gapClosed === undefined ? '-' : percent(each.gapClosed),
        percent(each.fallbackRate),
        String(each.maskViolations),
      ]),
    ),
    '<h2>Money against misses</h2>',
    picture(pareto),
    ...(verdicts.length === 0
      ? []
      : [
          '<h2>Stress suite</h2>',
          table(
            ['case', 'policy', 'against', 'change', '95 %', 'fallback', 'mask violations', 'verdict'],
            verdicts.map((each) => [
              each.cell,
              each.contender,
              each.against,
              percent(each.change),
              `${percent(each.changeLow)} to ${percent(each.changeHigh)}`,
              percent(each.fallbackRate),
              String(each.maskViolations),
              each.passed ? 'passed' : 'FAILED',
            ]),
          ),
        ]),
    ...[...cells, ...stress].flatMap((cell) => [
      `<h2>${escape(cell.cell)}</h2><p>${cell.seeds} seeds${cell.bound === undefined ? '' : `; no policy below J ${cell.bound.toFixed(3)}`}</p>`,
      cellTable(cell, classes),
    ]),
  ];
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Evaluation</title>
<style>body{font-family:sans-serif;margin:2em}td,th{padding:0.1em 0.8em 0.1em 0;text-align:left}</style></head>
<body>${parts.join('\n')}</body></html>
`;
}

function cellTable({ figures, comparisons }: EvaluationCellReport, classes: readonly string[]): string {
  const head = [
    'policy',
    'J',
    '95 %',
    'change',
    '95 %',
    '$ per 1k',
    'in time/s',
    ...classes.map((name) => `${name} missed`),
  ];
  return table(
    [...head, 'p50', 'p99', 'J/request', 'fallback'],
    figures.map((row) => {
      const own = comparisons.find(({ contender }) => contender === row.contender);
      return [
        row.contender,
        row.objective.toFixed(3),
        `${row.objectiveLow.toFixed(3)} to ${row.objectiveHigh.toFixed(3)}`,
        own === undefined ? '' : percent(own.change),
        own === undefined ? '' : `${percent(own.changeLow)} to ${percent(own.changeHigh)}`,
        row.usdPerThousand.toPrecision(3),
        row.goodput.toPrecision(3),
        ...row.missRates.map(percent),
        `${row.latencyMsP50.toFixed(1)} ms`,
        `${row.latencyMsP99.toFixed(1)} ms`,
        row.joulesPerRequest.toPrecision(3),
        percent(row.fallbackRate),
      ];
    }),
  );
}

/** Cost to the right, misses upwards; the front is joined. */
function picture(points: readonly EvaluationPareto[]): string {
  if (points.length === 0) return '';
  const scale = (values: readonly number[]): ((value: number) => number) => {
    const low = Math.min(...values);
    const span = Math.max(...values) - low || 1;
    return (value) => (value - low) / span;
  };
  const across = scale(points.map(({ cost }) => cost));
  const up = scale(points.map(({ misses }) => misses));
  const x = ({ cost }: EvaluationPareto): string =>
    (margin.left + across(cost) * (width - margin.left - margin.right)).toFixed(1);
  const y = ({ misses }: EvaluationPareto): string =>
    (margin.top + (1 - up(misses)) * (height - margin.top - margin.bottom)).toFixed(1);
  const front = points.filter(({ isFront }) => isFront).sort((left, right) => left.cost - right.cost);
  const dots = points.map((point) => {
    const label = `${point.contender} (${point.cost.toFixed(2)}, ${percent(point.misses)})`;
    return `<circle cx="${x(point)}" cy="${y(point)}" r="4" fill="${point.isFront ? '#2e8b57' : '#888888'}"/><text x="${Number(x(point)) + 7}" y="${Number(y(point)) + 4}">${escape(label)}</text>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" font-family="sans-serif" font-size="11">
<rect width="${width}" height="${height}" fill="#ffffff"/>
<polyline points="${front.map((point) => `${x(point)},${y(point)}`).join(' ')}" fill="none" stroke="#2e8b57"/>
${dots.join('\n')}
<text x="${margin.left}" y="${height - 12}">cost over the cheapest way to serve each request, mean over cells</text>
<text x="12" y="${height / 2}" transform="rotate(-90 12 ${height / 2})">misses a request</text>
</svg>`;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const cells = (row: readonly string[], tag: string): string =>
    `<tr>${row.map((text) => `<${tag}>${escape(text)}</${tag}>`).join('')}</tr>`;
  return `<table>${cells(head, 'th')}${rows.map((row) => cells(row, 'td')).join('\n')}</table>`;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(2)} %`;
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
