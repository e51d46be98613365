/** What the operating system says about files, in the words of the error catalogue. */
import { intarsiaError, IntarsiaError, messageOf } from '#core/errors.js';

/** The system's code of a failure, such as `ENOENT`; empty when it has none. */
export function systemCode(thrown: unknown): string {
  return thrown instanceof Error && 'code' in thrown && typeof thrown.code === 'string' ? thrown.code : '';
}

/** The failure of reading or writing `path` as an IntarsiaError; one that is an IntarsiaError already stays. */
export function diskFailure(path: string, thrown: unknown): IntarsiaError {
  if (thrown instanceof IntarsiaError) return thrown;
  const code = systemCode(thrown);
  switch (code) {
    case 'ENOSPC':
    case 'EDQUOT':
    case 'EFBIG':
      return intarsiaError('STORAGE_FULL', `no space left while writing ${path} (${code})`, { path, code }, thrown);
    case 'ENOENT':
    case 'ENOTDIR':
      return intarsiaError('NOT_FOUND', `${path} does not exist`, { path, code }, thrown);
    case 'EACCES':
    case 'EPERM':
      return intarsiaError('UNAVAILABLE', `${path} may not be read by this process (${code})`, { path, code }, thrown);
    case 'ELOOP':
      return intarsiaError(
        'MODEL_INVALID',
        `${path} is a link where a file is wanted (${code})`,
        { path, code },
        thrown,
      );
    default:
      return intarsiaError('UNAVAILABLE', `${path} cannot be read: ${messageOf(thrown)}`, { path, code }, thrown);
  }
}
