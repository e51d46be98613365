/**
 * From a model's folder to versions that a device can load: configuration, model file, labels, warm-up data. A version
 * that fails leaves the others alone; a configuration that fails leaves none.
 */
import type { ServedModel } from '#core/catalog.js';
import { asIntarsiaError, intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { ModelName, ModelVersion } from '#core/ids.js';
import { completeModelConfig } from '#core/model-config-completion.js';
import type { ModelConfigDraft } from '#core/model-config-draft.js';
import { modelConfigFromJson, modelConfigToJson } from '#core/model-config-json.js';
import { artifactInputs, artifactOutputs, clientInputs, clientOutputs } from '#core/model-config-specs.js';
import { modelConfigFromPbtxt } from '#core/model-config-text.js';
import type { ModelConfig, SequenceState, VersionPolicy } from '#core/model-config.js';
import { defaultModelFilename, defaultVersionPolicy } from '#core/model-config-draft.js';
import { formatShape, tensorBytes } from '#core/tensor.js';
import { variantWish } from '#core/variants/variant-choice.js';
import { shardConfig, splitRoute } from '#core/split/shard-config.js';
import type { ArtifactPart, ModelArtifact, ModelFiles, ModelFolder } from '#ports/model-files.js';
import type { Random } from '#ports/random.js';
import type { Placement } from '#actors/device/protocol.js';
import type { LoadOverrides } from './protocol.js';
import { readVariants, type HeldVariant, type HeldVariants } from './read-variants.js';
import { warmupRuns } from './warmup-tensors.js';

/** A version ready to be loaded. Whoever drops it releases it. */
export interface PreparedVersion {
  readonly version: ModelVersion;
  /** Without devices: they are not chosen yet. */
  readonly served: ServedModel;
  readonly placement: Placement;
  /** Other forms of it that its configuration allows devices to be given. */
  readonly variants?: readonly HeldVariant[];
  /** Equal for two preparations that would serve the same in the same way. */
  readonly identity: string;
  release(): Promise<void>;
}

export type PreparationOutcome =
  | { readonly ok: true; readonly prepared: PreparedVersion }
  | { readonly ok: false; readonly version: ModelVersion; readonly error: IntarsiaError };

export interface PreparedModel {
  /** The versions that the policy selects, ascending. */
  readonly versions: readonly PreparationOutcome[];
  /** What the operator should know, one sentence each. */
  readonly notes: readonly string[];
}

export interface PreparationOptions {
  readonly files: ModelFiles;
  readonly random: Random;
}

/**
 * @param imposed Versions to prepare, whatever the configuration says.
 * @throws MODEL_NOT_FOUND, MODEL_INVALID, INVALID_ARGUMENT, STORAGE_FULL, UNAVAILABLE.
 */
export async function prepareModel(
  name: ModelName,
  overrides: LoadOverrides,
  options: PreparationOptions,
  imposed?: readonly ModelVersion[],
): Promise<PreparedModel> {
  const folder = await options.files.open(name, overrides.files.size > 0 ? overrides.files : undefined);
  try {
    const draft = readDraft(folder, overrides);
    const policy = draft?.versionPolicy ?? defaultVersionPolicy;
    const selected = imposed ?? folder.servedVersions ?? selectVersions(policy, folder.versions);
    const versions: PreparationOutcome[] = [];
    const notes = [...(draft?.notes ?? [])];
    for (const version of selected) {
      try {
        if (imposed !== undefined && !folder.versions.includes(version)) throw missingVersion(name, version);
        const variantNotes: string[] = [];
        const prepared = await prepareVersion(name, version, draft, folder, {
          random: options.random,
          notes: variantNotes,
        });
        notes.push(...variantNotes);
        versions.push({ ok: true, prepared });
      } catch (thrown) {
        versions.push({ ok: false, version, error: asIntarsiaError(thrown) });
      }
    }
    return { versions, notes };
  } finally {
    await folder.close();
  }
}

function missingVersion(model: ModelName, version: ModelVersion): IntarsiaError {
  return intarsiaError('NOT_FOUND', `model ${JSON.stringify(model)} has no version ${version} on this host`, {
    model,
    version,
  });
}

function readDraft(folder: ModelFolder, { configJson }: LoadOverrides): ModelConfigDraft | undefined {
  if (configJson !== undefined) return modelConfigFromJson(configJson, 'config');
  return folder.configText === undefined ? undefined : modelConfigFromPbtxt(folder.configText, 'config.pbtxt');
}

/** Versions that a policy serves, ascending; versions it names that do not exist are included, and fail later. */
function selectVersions(policy: VersionPolicy, versions: readonly ModelVersion[]): readonly ModelVersion[] {
  switch (policy.kind) {
    case 'all':
      return versions;
    case 'latest':
      return versions.slice(-policy.count);
    case 'specific':
      return [...new Set(policy.versions as readonly ModelVersion[])].sort((a, b) => Number(a) - Number(b));
  }
}

async function prepareVersion(
  name: ModelName,
  version: ModelVersion,
  draft: ModelConfigDraft | undefined,
  folder: ModelFolder,
  { random, notes }: { readonly random: Random; readonly notes: string[] },
): Promise<PreparedVersion> {
  if (!folder.versions.includes(version)) {
    throw intarsiaError(
      'NOT_FOUND',
      `version_policy names version ${version}, which model ${JSON.stringify(name)} does not have`,
      {
        model: name,
        version,
      },
    );
  }
  const artifact = await folder.artifact(version, draft?.defaultModelFilename ?? defaultModelFilename);
  let held: HeldVariants | undefined;
  try {
    const { facts, digest, path, part } = artifact;
    if (part !== undefined) return await prepareShard({ name, version, draft, folder, artifact, part });
    const config = await withInitialStates(completeModelConfig(draft, facts, name), folder);
    if (variantWish(config) !== undefined) held = await readVariants(folder, version, digest);
    notes.push(...(held?.notes ?? []));
    const variants = held?.variants ?? [];
    const labels = await readLabels(config, folder);
    const inputs = artifactInputs(config, facts);
    const placement: Placement = {
      model: name,
      version,
      config,
      artifact: { digest, path },
      weightBytes: facts.weightBytes,
      inputs,
      outputs: artifactOutputs(config, facts),
      optimization: config.optimization ?? 'all',
      warmups: warmupRuns({
        config,
        inputs,
        files: await readWarmupFiles(config, folder),
        random: random.stream(`${name}/${version}`),
      }),
    };
    const served: ServedModel = {
      name,
      version,
      config,
      inputs: clientInputs(config),
      outputs: clientOutputs(config),
      optionalInputs: new Set(config.inputs.filter(({ optional }) => optional).map((input) => input.name)),
      digest,
      labels,
      devices: [],
    };
    const states = (config.sequenceBatching?.states ?? []).map(({ initial }) => [...(initial ?? [])]);
    const forms = variants.map((variant) => [variant.name, variant.artifact?.digest ?? '', variant.record]);
    const identity = JSON.stringify([digest, modelConfigToJson(config), [...labels], states, forms]);
    const release = async (): Promise<void> => {
      await held?.release();
      await artifact.release();
    };
    return { version, served, placement, variants, identity, release };
  } catch (thrown) {
    await held?.release();
    await artifact.release();
    throw thrown;
  }
}

/** A piece of a model: its own configuration follows from the whole's. */
async function prepareShard({
  name,
  version,
  draft,
  folder,
  artifact,
  part,
}: {
  readonly name: ModelName;
  readonly version: ModelVersion;
  readonly draft: ModelConfigDraft | undefined;
  readonly folder: ModelFolder;
  readonly artifact: ModelArtifact;
  readonly part: ArtifactPart;
}): Promise<PreparedVersion> {
  const { facts, digest, path } = artifact;
  const { model, shard, split } = part;
  const wholeConfig = await withInitialStates(completeModelConfig(draft, part.facts, model), folder);
  const config = shardConfig(wholeConfig, facts, { name, batches: split.splitBatches === true });
  const whole = {
    name: model,
    version,
    config: wholeConfig,
    inputs: clientInputs(wholeConfig),
    outputs: clientOutputs(wholeConfig),
    optionalInputs: new Set(wholeConfig.inputs.filter(({ optional }) => optional).map((input) => input.name)),
    digest: part.digest,
    labels: await readLabels(wholeConfig, folder),
  };
  const route = splitRoute({ ...wholeConfig, name: model }, split, part.stages);
  const served: ServedModel = {
    name,
    version,
    config,
    inputs: clientInputs(config),
    outputs: clientOutputs(config),
    optionalInputs: new Set(),
    digest,
    labels: new Map(),
    devices: [],
    part: { shard, route, whole },
  };
  const placement: Placement = {
    model: name,
    version,
    config,
    artifact: { digest, path },
    weightBytes: facts.weightBytes,
    inputs: artifactInputs(config, facts),
    outputs: artifactOutputs(config, facts),
    optimization: config.optimization ?? 'all',
    warmups: [],
  };
  const identity = JSON.stringify([digest, modelConfigToJson(config), modelConfigToJson(wholeConfig), route]);
  return { version, served, placement, identity, release: () => artifact.release() };
}

/** One label a line; empty lines at the end are no labels. */
async function readLabels(config: ModelConfig, folder: ModelFolder): Promise<ReadonlyMap<string, readonly string[]>> {
  const labels = new Map<string, readonly string[]>();
  for (const { name, labelFilename } of config.outputs) {
    if (labelFilename === '') continue;
    const text = new TextDecoder().decode(await folder.bytes(labelFilename));
    const lines = text.split('\n').map((line) => line.replace(/\r$/, ''));
    while (lines.length > 0 && lines[lines.length - 1] === '') lines.pop();
    labels.set(name, lines);
  }
  return labels;
}

async function readWarmupFiles(config: ModelConfig, folder: ModelFolder): Promise<ReadonlyMap<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  for (const { inputs } of config.warmups) {
    for (const { source } of inputs) {
      if (source.kind === 'file') files.set(source.file, await folder.bytes(`warmup/${source.file}`));
    }
  }
  return files;
}

async function withInitialStates(config: ModelConfig, folder: ModelFolder): Promise<ModelConfig> {
  const { sequenceBatching } = config;
  if (sequenceBatching === undefined) return config;
  const states: SequenceState[] = [];
  for (const state of sequenceBatching.states) {
    if (state.initialFile === undefined) {
      states.push(state);
      continue;
    }
    const initial = await folder.bytes(`initial_state/${state.initialFile}`);
    const dims = state.dims.map((size) => (size === -1 ? 1 : size));
    const bytes = tensorBytes(state.datatype, dims);
    if (bytes !== undefined && initial.byteLength !== bytes) {
      throw intarsiaError(
        'MODEL_INVALID',
        `initial_state/${state.initialFile} of model ${JSON.stringify(config.name)} has ${initial.byteLength} bytes; ${state.datatype} ${formatShape(dims)} takes ${bytes}`,
        { model: config.name, file: state.initialFile },
      );
    }
    states.push({ ...state, initial });
  }
  return { ...config, sequenceBatching: { ...sequenceBatching, states } };
}
