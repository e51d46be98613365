/** A failure as one line that says what happened and what to do, and as the exit code of the process. */
import { IntarsiaError, messageOf, toErrorData, type ErrorCode } from '#core/errors.js';
import type { Output } from './terminal.js';

export const exitCodes = {
  /** Done. */
  ok: 0,
  /** The command was understood and failed: a host away, a check that did not pass, requests that failed. */
  failed: 1,
  /** The command line, the environment or the configuration file is wrong. */
  usage: 2,
} as const;

/** What to do about a code, where the message alone does not say. */
const advice: Partial<Record<ErrorCode, string>> = {
  MODEL_NOT_FOUND: 'see `intarsia models list`',
  MODEL_NOT_READY: 'see the reason in `intarsia models list`',
  QUEUE_FULL: 'send less at once, or raise the limit of the queue',
  UNAUTHENTICATED: 'give a token with --token or INTARSIA_TOKEN',
  PERMISSION_DENIED: 'use a token that may do this',
  OUT_OF_MEMORY: 'unload another model, or choose another device',
  DEADLINE_EXCEEDED: 'raise --timeout-ms, or look at the load of the host with `intarsia status`',
};

/** Prints the failure and gives back the exit code. A stack trace only with `--verbose`. */
export function reportFailure(thrown: unknown, output: Output): number {
  const { code, message } = toErrorData(thrown);
  const known = thrown instanceof IntarsiaError;
  output.result({ error: toErrorData(thrown) });
  output.note(`${output.style('red', 'error:')} ${oneLine(message)}${hintFor(code, message)}`);
  if (output.verbose) {
    for (let cause: unknown = thrown; cause instanceof Error; cause = cause.cause) {
      output.note(cause.stack ?? messageOf(cause));
    }
  } else if (!known || code === 'INTERNAL') output.note('       run it again with --verbose for the details');
  return code === 'CONFIG_INVALID' ? exitCodes.usage : exitCodes.failed;
}

function hintFor(code: ErrorCode, message: string): string {
  if (/ENOENT/.test(message)) return '';
  if (code === 'UNAVAILABLE' && message.includes('cannot be reached')) {
    return '; is a host serving there? Start one with `intarsia start`, or name another with --endpoint';
  }
  const hint = advice[code];
  return hint === undefined ? '' : `; ${hint}`;
}

function oneLine(text: string): string {
  return text.replace(/\s*[\r\n]+\s*/g, ' ').trim();
}
