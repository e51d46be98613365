/** The hardware profiles: the built-in ones, corrected and extended by the operator's file. */
import { readYamlFile } from '#adapters/yaml/read-yaml.js';
import { builtInProfiles } from '#core/hardware-profile-book.js';
import { addProfilesOfFile } from '#core/hardware-profile-file.js';
import type { ProfileBook } from '#core/hardware-profile.js';

/** @throws CONFIG_INVALID naming file, row and field. */
export async function readProfiles(path: string): Promise<ProfileBook> {
  if (path === '') return builtInProfiles;
  return addProfilesOfFile(builtInProfiles, await readYamlFile(path), path);
}
