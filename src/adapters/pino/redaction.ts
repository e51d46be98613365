/**
 * Keeps secrets out of logs: fields whose name speaks of one, and credentials inside texts.
 *
 * The last line of defence. The first is that callers pass plain fields, never requests, headers or configurations.
 */
import type { LogFields } from '#ports/log.js';

export const redacted = '[redacted]';

/** Names of fields whose text is never shown. Numbers under such names (`tokens: 12`) are counts and stay. */
const secretName = /token|secret|passw|passphrase|authorization|cookie|credential|api[-_]?key|private[-_]?key/i;
/** `Bearer xyz` and `Basic xyz` anywhere in a text, and a password in a URL. */
const bearerText = /\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{4,}/gi;
const urlPassword = /(:\/\/[^/\s:@]*:)[^/\s@]+@/g;

export function redactFields(fields: LogFields): LogFields {
  const shown: Record<string, string | number | boolean | undefined> = {};
  for (const [name, value] of Object.entries(fields)) {
    if (typeof value !== 'string') shown[name] = value;
    else shown[name] = secretName.test(name) ? redacted : redactText(value);
  }
  return shown;
}

export function redactText(text: string): string {
  return text.replace(bearerText, `$1 ${redacted}`).replace(urlPassword, `$1${redacted}@`);
}
