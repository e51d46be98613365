/** Where a user's profiles are when nobody says otherwise: by the XDG rules, `~/.local/share/intarsia/profiles`. */
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';

export function defaultProfileFolder(env: Readonly<Record<string, string | undefined>> = process.env): string {
  const stated = env['XDG_DATA_HOME'] ?? '';
  return join(isAbsolute(stated) ? stated : join(homedir(), '.local', 'share'), 'intarsia', 'profiles');
}
