/**
 * Tables of docs/ that repeat what the code says. A test compares cell by cell; with INTARSIA_UPDATE_DOCS=1 it writes the
 * table instead (then run `npm run format`). A table stands between `<!-- table:NAME -->` and `<!-- end -->`.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect } from 'vitest';

export type TableRows = readonly (readonly string[])[];

const pathOf = (document: string): URL => new URL(`../../docs/${document}`, import.meta.url);

/** Cells of a named table, header first. */
export function readTable(document: string, name: string): TableRows {
  const text = readFileSync(pathOf(document), 'utf8');
  const section = new RegExp(`<!-- table:${name} -->\n([\\s\\S]*?)<!-- end -->`).exec(text)?.[1];
  if (section === undefined)
    throw new Error(`docs/${document} has no table between <!-- table:${name} --> and <!-- end -->`);
  return section
    .split('\n')
    .filter((line) => line.startsWith('|') && !/^\|[\s|:-]+\|$/.test(line))
    .map((line) => line.split(/(?<!\\)\|/).slice(1, -1))
    .map((cells) => cells.map((cell) => cell.trim().replace(/\\\|/g, '|')));
}

/** Expects the document's table to hold exactly these rows, header first. */
export function expectTable(document: string, name: string, rows: TableRows): void {
  if (process.env['INTARSIA_UPDATE_DOCS'] === '1') writeTable(document, name, rows);
  expect(
    readTable(document, name),
    `docs/${document} is behind the code: INTARSIA_UPDATE_DOCS=1 npx vitest run test/docs`,
  ).toEqual(rows.map((row) => row.map((cell) => cell.trim())));
}

function writeTable(document: string, name: string, rows: TableRows): void {
  const [header = [], ...body] = rows;
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replace(/\|/g, '\\|')).join(' | ')} |`;
  const table = [line(header), line(header.map(() => '---')), ...body.map(line)].join('\n');
  const text = readFileSync(pathOf(document), 'utf8');
  const pattern = new RegExp(`(<!-- table:${name} -->\n)[\\s\\S]*?(<!-- end -->)`);
  writeFileSync(
    pathOf(document),
    text.replace(pattern, (_, start: string, end: string) => `${start}\n${table}\n\n${end}`),
  );
}
