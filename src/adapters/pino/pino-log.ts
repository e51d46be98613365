/**
 * The log port over pino: one JSON object a line, or lines for people, with a level that can change while the host runs.
 *
 * A call never blocks: lines go through a bounded buffer, and when whoever reads them is slower than we write, further
 * lines are dropped and counted. A call never shows a secret: see redaction.ts.
 */
import { pino } from 'pino';
import { redactFields, redactText } from './redaction.js';
import { prettyLine } from './pretty-line.js';
import type { Log, LogFields } from '#ports/log.js';

export const logLevels = ['debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

export interface PinoLogOptions {
  readonly level: LogLevel;
  readonly format: 'json' | 'pretty';
  /** File descriptor (2 is standard error, the default), or the path of a file that is appended to. */
  readonly destination?: number | string;
  /** Bytes of lines that may wait for a slow reader, default 1 MiB. At the bound new lines are dropped and counted. */
  readonly bufferBytesMax?: number;
  /** Fields of every line, such as the host's name. */
  readonly fields?: LogFields;
}

/** A log with its handle: level, losses, end. */
export interface LogHandle {
  readonly log: Log;
  level(): LogLevel;
  /** Applies to every log made by `with`, at once. */
  setLevel(level: LogLevel): void;
  /** Lines given up so far. */
  droppedLines(): number;
  /** Writes what waits, synchronously: call it before the process ends. */
  flush(): void;
}

/** Opens a log. @throws Error of the file system when the destination is a path that cannot be written. */
export function openPinoLog(options: PinoLogOptions): LogHandle {
  const sink = pino.destination({
    dest: options.destination ?? 2,
    sync: false,
    minLength: 0,
    maxLength: options.bufferBytesMax ?? 1024 * 1024,
    mkdir: true,
  });
  let dropped = 0;
  sink.on('drop', () => (dropped += 1));
  // A reader that went away (a closed pipe) must not end the host: what it does not read counts as dropped.
  sink.on('error', () => (dropped += 1));
  const root = pino(
    {
      level: options.level,
      base: redactFields(options.fields ?? {}),
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      messageKey: 'message',
    },
    options.format === 'json' ? sink : { write: (line: string) => void sink.write(prettyLine(line)) },
  );
  return {
    log: makeLog(root, {}),
    level: () => root.level as LogLevel,
    setLevel: (level) => (root.level = level),
    droppedLines: () => dropped,
    flush: () => sink.flushSync(),
  };
}

/** Children carry their fields themselves instead of being pino's children, whose level would be their own. */
function makeLog(root: pino.Logger, fields: LogFields): Log {
  return {
    debug: (message, more) => write(root, 'debug', fields, message, more),
    info: (message, more) => write(root, 'info', fields, message, more),
    warn: (message, more) => write(root, 'warn', fields, message, more),
    error: (message, more) => write(root, 'error', fields, message, more),
    with: (more) => makeLog(root, { ...fields, ...redactFields(more) }),
  };
}

function write(
  root: pino.Logger,
  level: 'debug' | 'info' | 'warn' | 'error',
  fields: LogFields,
  message: string,
  more: LogFields | undefined,
): void {
  if (!root.isLevelEnabled(level)) return;
  root[level](more === undefined ? fields : { ...fields, ...redactFields(more) }, redactText(message));
}
