/**
 * One log line for people: time, level, message, then the fields as `name=value`. Line breaks inside of values are
 * escaped, so that nobody can forge a line.
 */
const levelNames: Readonly<Record<string, string>> = { debug: 'debug', info: 'info ', warn: 'WARN ', error: 'ERROR' };

/** Turns a JSON line as pino writes it into one for people. */
export function prettyLine(line: string): string {
  const { time, level, message, ...fields } = JSON.parse(line) as Record<string, unknown>;
  const clock = typeof time === 'string' ? time.slice(11, 23) : '';
  const shown = Object.entries(fields).map(([name, value]) => ` ${name}=${shownValue(value)}`);
  return `${clock} ${levelNames[String(level)] ?? String(level)} ${oneLine(String(message))}${shown.join('')}\n`;
}

function shownValue(value: unknown): string {
  if (typeof value !== 'string') return JSON.stringify(value);
  return /^[^\s"=]+$/.test(value) ? value : JSON.stringify(value);
}

function oneLine(text: string): string {
  // eslint-disable-next-line no-control-regex -- control characters are what is looked for
  return text.replace(/[\u0000-\u001f\u007f\u2028\u2029]/g, (control) => JSON.stringify(control).slice(1, -1));
}
