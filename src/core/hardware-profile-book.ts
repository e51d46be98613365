/** The built-in profiles, complete: every row of the tables, with the stated values beside the figures used. */
import { invariant } from './errors.js';
import { amdAndIntelRows } from './hardware-profile-amd-intel.js';
import { nvidiaRows } from './hardware-profile-nvidia.js';
import { otherRows } from './hardware-profile-others.js';
import { profileOfRow } from './hardware-profile-row.js';
import { statedRows } from './hardware-profile-stated.js';
import type { HardwareProfile, ProfileBook, ProfileFigure, StatedFigure } from './hardware-profile.js';

/** Profiles by key, in the order of docs/hardware.md. Frozen. */
export const builtInProfiles: ProfileBook = makeBook();

function makeBook(): ProfileBook {
  const book = new Map<string, HardwareProfile>();
  for (const row of [...nvidiaRows, ...amdAndIntelRows, ...otherRows]) {
    invariant(!book.has(row.key), `two profiles have the key ${row.key}`);
    book.set(row.key, profileOfRow(row));
  }
  for (const { profile: key, ...stated } of statedRows) {
    const profile = book.get(key);
    invariant(profile !== undefined, `a stated value belongs to ${key}, which does not exist`);
    book.set(key, withStated(profile, stated));
  }
  return book;
}

function withStated(profile: HardwareProfile, stated: StatedFigure): HardwareProfile {
  const figure: ProfileFigure | undefined = stated.figure === undefined ? undefined : profile.figures[stated.figure];
  return Object.freeze({
    ...profile,
    stated: Object.freeze([...profile.stated, Object.freeze(stated)]),
    figures:
      figure === undefined || stated.figure === undefined
        ? profile.figures
        : Object.freeze({
            ...profile.figures,
            [stated.figure]: Object.freeze({ ...figure, statedValue: stated.statedValue }),
          }),
  });
}
