/** A log that remembers what was said, for tests. It keeps the newest lines and counts what it forgot. */
import type { Log, LogFields } from '#ports/log.js';

export interface LogLine {
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  readonly message: string;
  readonly fields: LogFields;
}

const linesMax = 10_000;

export class RecordingLog implements Log {
  /** Oldest first, of this log and of every log made from it by `with`. */
  readonly lines: LogLine[];
  private readonly fields: LogFields;

  constructor(fields: LogFields = {}, lines: LogLine[] = []) {
    this.fields = fields;
    this.lines = lines;
  }

  debug(message: string, fields?: LogFields): void {
    this.record('debug', message, fields);
  }
  info(message: string, fields?: LogFields): void {
    this.record('info', message, fields);
  }
  warn(message: string, fields?: LogFields): void {
    this.record('warn', message, fields);
  }
  error(message: string, fields?: LogFields): void {
    this.record('error', message, fields);
  }

  with(fields: LogFields): Log {
    return new RecordingLog({ ...this.fields, ...fields }, this.lines);
  }

  /** Lines of a level whose message contains the text. */
  find(level: LogLine['level'], text = ''): readonly LogLine[] {
    return this.lines.filter((line) => line.level === level && line.message.includes(text));
  }

  private record(level: LogLine['level'], message: string, fields: LogFields = {}): void {
    if (this.lines.length >= linesMax) this.lines.shift();
    this.lines.push({ level, message, fields: { ...this.fields, ...fields } });
  }
}
