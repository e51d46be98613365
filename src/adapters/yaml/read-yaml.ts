/**
 * YAML text to plain data, for configuration and profile files. Only JSON's types come out; what they mean is checked by
 * whoever asked.
 */
import { readFile } from 'node:fs/promises';
import { LineCounter, parseDocument } from 'yaml';
import { intarsiaError } from '#core/errors.js';

const fileBytesMax = 16 * 1024 * 1024;

/**
 * Reads a YAML file. An empty one gives null.
 * @throws CONFIG_INVALID naming the file, and for syntax errors line and column; aliases are limited, so that a small
 * file cannot grow into a large value.
 */
export async function readYamlFile(path: string): Promise<unknown> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code ?? 'unreadable';
    throw intarsiaError('CONFIG_INVALID', `cannot read ${path}: ${reason}`, { file: path, reason }, error);
  }
  return parseYaml(text, path);
}

/** Parses YAML text; `name` is how messages call it. @throws CONFIG_INVALID with line and column. */
export function parseYaml(text: string, name: string): unknown {
  if (text.length > fileBytesMax) {
    throw intarsiaError('CONFIG_INVALID', `${name} has ${text.length} characters; the limit is ${fileBytesMax}`, {
      file: name,
    });
  }
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true });
  const [problem] = document.errors;
  if (problem !== undefined) {
    const { line, col } = lines.linePos(problem.pos[0]);
    throw intarsiaError('CONFIG_INVALID', `${name}, line ${line}, column ${col}: ${problem.message}`, {
      file: name,
      line,
      column: col,
    });
  }
  try {
    return document.toJS({ maxAliasCount: 100 }) as unknown;
  } catch (error) {
    throw intarsiaError(
      'CONFIG_INVALID',
      `${name}: ${error instanceof Error ? error.message : String(error)}`,
      { file: name },
      error,
    );
  }
}
