/**
 * What a model keeps between the requests of a sequence, as the configuration says that lies where repositories have it:
 * `<model>/config.pbtxt` beside `<model>/<version>/model.onnx`. A file anywhere else has no configuration.
 */
import { readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { intarsiaError, messageOf } from '#core/errors.js';
import { modelConfigFromPbtxt } from '#core/model-config-text.js';
import type { SequenceState } from '#core/model-config.js';
import type { SplitGraph } from '#core/split/graph.js';
import { stateSpans, type StateSpan } from '#core/split/state-spans.js';

export interface KnownStates {
  /** Requests belong to sequences, whatever is kept of them. */
  readonly hasSequences: boolean;
  readonly states: readonly SequenceState[];
}

const none: KnownStates = { hasSequences: false, states: [] };

/** @throws MODEL_INVALID when there is such a configuration and it is none. */
export async function readStates(modelPath: string): Promise<KnownStates> {
  const folder = dirname(modelPath);
  if (!/^[1-9][0-9]{0,14}$/.test(basename(folder))) return none;
  const path = join(dirname(folder), 'config.pbtxt');
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return none;
    throw intarsiaError('MODEL_INVALID', `${path} cannot be read: ${messageOf(error)}`, {}, error);
  }
  const config = modelConfigFromPbtxt(text, path);
  // A file that the host would not serve by this configuration.
  if (basename(modelPath) !== config.defaultModelFilename) return none;
  const { sequenceBatching } = config;
  return { hasSequences: sequenceBatching !== undefined, states: sequenceBatching?.value.states ?? [] };
}

/** What may not be parted, and a sentence on it for each. */
export function boundStates(
  graph: SplitGraph,
  { states }: KnownStates,
): { readonly spans: readonly StateSpan[]; readonly notes: readonly string[] } {
  const spans = stateSpans(graph, states);
  const notes = spans.map(
    ({ inputName, first, last }) =>
      `config.pbtxt has the state ${JSON.stringify(inputName)}: nodes ${first} to ${last} stay in one shard`,
  );
  return { spans, notes };
}
