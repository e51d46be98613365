/** Worker threads and executor processes cannot run TypeScript: tests that use them need dist/ to be fresh. */
import { build } from '../../scripts/build.mjs';
import { isBuildFresh } from '../../scripts/fingerprint.mjs';

export default function setup(): void {
  if (!isBuildFresh()) build({ quiet: true });
}
