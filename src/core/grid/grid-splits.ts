/**
 * Split models in a grid's routing table: a model is served when every stage has somebody who is ready, and its requests go
 * to the holders of the first stage. Which copy a holder belongs to does not matter here: any holder of a stage may follow
 * any holder of the one before, so that copies, further replicas of a slow stage and standbys are one thing to the picker.
 */
import type { CatalogEntry, ModelPart, ServedModel, VersionStatus } from '../catalog.js';
import type { ModelName, ModelVersion } from '../ids.js';
import { readShardName, shardModelName, splitStagesMax } from '../split/split-spec.js';
import type { VersionParts } from './grid-versions.js';

export interface BuiltModel {
  readonly entry: CatalogEntry;
  readonly parts: ReadonlyMap<ModelVersion, VersionParts>;
}

/** A version in pieces: served, or what it lacks. */
export type SplitVersion =
  | { readonly ok: true; readonly parts: VersionParts }
  | { readonly ok: false; readonly version: ModelVersion; readonly status: VersionStatus };

/**
 * What the shards of one model come to, by version. Of two splits of a version a complete one counts, of two complete ones
 * that whose id comes first.
 * @param names Shards that somebody has, sorted.
 */
export function splitParts(
  names: readonly ModelName[],
  built: ReadonlyMap<ModelName, BuiltModel>,
): ReadonlyMap<ModelVersion, SplitVersion> {
  const found = new Map<ModelVersion, SplitVersion>();
  const seen = new Set<string>();
  for (const name of names) {
    const shard = readShardName(name);
    for (const [version, parts] of built.get(name)?.parts ?? []) {
      if (shard === undefined || seen.has(`${shard.split} ${version}`)) continue;
      seen.add(`${shard.split} ${version}`);
      const made = splitVersion(shard, version, parts.served?.part, built);
      if (found.get(version)?.ok !== true) found.set(version, made);
    }
  }
  return found;
}

/** A complete split goes before whole copies: it was deployed, and they are about to leave. */
export function withSplit(whole: VersionParts, split: SplitVersion | undefined): VersionParts {
  if (split?.ok === true) return split.parts;
  if (split === undefined || whole.served !== undefined) return whole;
  return { ...whole, elsewhere: split.status };
}

function splitVersion(
  { model, split }: { readonly model: ModelName; readonly split: string },
  version: ModelVersion,
  known: ModelPart | undefined,
  built: ReadonlyMap<ModelName, BuiltModel>,
): SplitVersion {
  const part = known ?? firstPart(model, split, version, built);
  const unready = (reason: string): SplitVersion => ({
    ok: false,
    version,
    status: { version, state: 'LOADING', reason, isQuarantined: false },
  });
  if (part === undefined) return unready('no stage of it is ready yet');
  const stages = part.route.stages.map((stage) => built.get(stage.model)?.parts.get(version));
  const missing = stages.flatMap((parts, index) => (isServed(parts) ? [] : [stageTrouble(index, parts)]));
  const [first] = stages;
  if (missing.length > 0 || first?.served === undefined) {
    return unready(`of ${stages.length} stages these have nobody ready: ${missing.join('; ')}`);
  }
  const { devices, elsewhere = [] } = first.served;
  const served: ServedModel = { ...part.whole, devices, elsewhere, split: part.route };
  const { candidates, reserve } = first;
  return { ok: true, parts: { version, served, candidates, reserve, elsewhere: undefined } };
}

function isServed(parts: VersionParts | undefined): boolean {
  return parts?.served !== undefined && parts.candidates.length + parts.reserve.length > 0;
}

function stageTrouble(index: number, parts: VersionParts | undefined): string {
  const reason = parts?.elsewhere?.reason ?? '';
  return reason === '' ? `stage ${index + 1}` : `stage ${index + 1} (${reason})`;
}

/** Any shard of the split that is ready tells of the whole. */
function firstPart(
  model: ModelName,
  split: string,
  version: ModelVersion,
  built: ReadonlyMap<ModelName, BuiltModel>,
): ModelPart | undefined {
  for (let shard = 0; shard < splitStagesMax; shard += 1) {
    const served = built.get(shardModelName(model, split, shard))?.parts.get(version)?.served;
    if (served?.part !== undefined) return served.part;
  }
  return undefined;
}
