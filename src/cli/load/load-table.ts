/** A load report for people. */
import type { Output } from '../terminal.js';
import type { LoadReport, Percentiles } from './load-report.js';

export function printLoadReport(report: LoadReport, output: Output): void {
  const { goodput, server, receipts } = report;
  output.line(`${report.arrivals}; ${number(report.windowSeconds)} s counted`);
  output.line();
  output.table(
    ['', 'per second', 'total'],
    [
      ['answered well', number(report.requestsPerSecond), report.succeeded],
      ...(report.itemsPerSecond === report.requestsPerSecond ? [] : [['items', number(report.itemsPerSecond), '']]),
      ...(goodput === undefined
        ? []
        : [
            [
              `within ${number(goodput.deadlineMs)} ms (goodput)`,
              number(goodput.perSecond),
              `${(goodput.share * 100).toFixed(1)} %`,
            ],
          ]),
      ['failed', number(report.failed / report.windowSeconds), report.failed],
    ],
    1,
  );
  output.line();
  output.table(
    ['milliseconds', 'mean', 'p50', 'p90', 'p95', 'p99', 'p99.9', 'max'],
    [
      percentileRow('latency', report.latencyMs),
      ...(report.sendDelayMs === undefined ? [] : [percentileRow('sent late by', report.sendDelayMs)]),
      ...(receipts === undefined
        ? []
        : [
            percentileRow('queue (receipts)', receipts.queueMs),
            percentileRow('compute (receipts)', receipts.computeMs),
            percentileRow('link (receipts)', receipts.linkMs),
          ]),
    ],
    1,
  );
  if (server !== undefined) {
    output.line();
    output.table(
      ["the host's statistics, mean ms", 'queue', 'input', 'infer', 'output', 'items/batch', 'batches'],
      [
        [
          `${server.requests} requests`,
          number(server.queueMs),
          number(server.computeInputMs),
          number(server.computeInferMs),
          number(server.computeOutputMs),
          number(server.itemsPerBatch),
          server.batches,
        ],
      ],
      1,
    );
  }
  const codes = Object.entries(report.errors);
  if (codes.length > 0) {
    output.line();
    output.table(['failure', 'requests'], codes, 1);
  }
  const notes = notesOf(report);
  if (notes.length > 0) output.line();
  for (const note of notes) output.line(output.style('yellow', note));
}

function percentileRow(name: string, percentiles: Percentiles): (string | number)[] {
  const { mean, p50, p90, p95, p99, p999, max } = percentiles;
  return [name, ...[mean, p50, p90, p95, p99, p999, max].map(number)];
}

/** What makes the figures less than they seem. */
function notesOf(report: LoadReport): string[] {
  const notes: string[] = [];
  if (report.generatorCores !== undefined && report.generatorCores > 0.9) {
    notes.push(`the generator itself used ${report.generatorCores.toFixed(2)} of a core: it may be the bottleneck`);
  }
  if (report.sendDelayMs !== undefined && report.sendDelayMs.p99 > 10) {
    notes.push(
      `one request in a hundred left ${number(report.sendDelayMs.p99)} ms late: this machine could not keep the rate`,
    );
  }
  if (report.requests < 100) notes.push('fewer than 100 requests: the high percentiles mean little');
  return notes;
}

function number(value: number): string {
  if (value === 0) return '0';
  const digits = Math.abs(value) >= 1000 ? 0 : Math.abs(value) >= 10 ? 1 : 3;
  return value.toFixed(digits);
}
