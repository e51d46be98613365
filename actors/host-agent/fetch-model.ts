/** Finds the manifest of a model version in the store, and makes its files be here. */
import { intarsiaError } from '#core/errors.js';
import { manifestFromText } from '#core/grid/manifest.js';
import type { Edition } from '#core/grid/records.js';
import { editionText } from '#core/grid/rollout.js';
import type { HeldModel } from '#ports/artifact-source.js';
import type { Clock } from '#ports/clock.js';
import type { CompleteAgentOptions } from './options.js';

/** @throws NOT_FOUND (no such manifest), and what the store and the source of files throw. */
export async function fetchModel(
  edition: Edition,
  { store, keys, callMs, artifacts, fetchMsMax }: CompleteAgentOptions,
  clock: Clock,
): Promise<HeldModel> {
  const { entry } = await store.get(keys.model(edition.model, edition.version), {
    deadlineMs: clock.nowMs() + callMs,
  });
  if (entry === undefined) {
    throw intarsiaError('NOT_FOUND', `no host has published the files of ${editionText(edition)}`, {
      model: edition.model,
      version: edition.version,
    });
  }
  return await artifacts.ensure(manifestFromText(entry.value), { deadlineMs: clock.nowMs() + fetchMsMax }).held;
}
