/** Requests of a trace, whatever it is: a file of somebody's, or what a grid logged itself. */
import { readFile, stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { IntarsiaError, intarsiaError, messageOf } from '#core/errors.js';
import { readTrace, type TraceRow } from '#sim/fleet/trace-file.js';
import { readLogTrace } from './decision-log/log-trace.js';

/**
 * Rows of a trace's file, or of the decision log in a folder.
 * @throws NOT_FOUND when it cannot be read, INVALID_ARGUMENT naming the line that is wrong.
 */
export async function traceRows(path: string): Promise<readonly TraceRow[]> {
  let text: string;
  try {
    if ((await stat(path)).isDirectory()) return await readLogTrace(path);
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (error instanceof IntarsiaError) throw error;
    throw intarsiaError('NOT_FOUND', `trace ${path} cannot be read: ${messageOf(error)}`, { path }, error);
  }
  return readTrace(text, basename(path));
}
