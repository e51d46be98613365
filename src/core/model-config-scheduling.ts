/** The schedulers of Triton's ModelConfig: dynamic batching, and sequences with their controls and states. */
import type { Datatype } from './datatype.js';
import { intarsiaError } from './errors.js';
import type { FieldReader } from './model-config-fields.js';
import { readDatatype, readFileName, readShape, refuseTwoOf, requiredString } from './model-config-values.js';
import {
  defaultQueuePolicy,
  type DynamicBatching,
  type QueuePolicy,
  type SequenceBatching,
  type SequenceControl,
  type SequenceControlKind,
  type SequenceState,
} from './model-config.js';

const int32Max = 2 ** 31 - 1;
const microsecondsRange = { min: 0, max: Number.MAX_SAFE_INTEGER };
const priorityLevelsMax = 1000;

export function readDynamicBatching(reader: FieldReader): DynamicBatching {
  const priorityLevels = reader.integer('priority_levels', { min: 0, max: priorityLevelsMax }) ?? 0;
  const defaultPriorityLevel = reader.integer('default_priority_level', { min: 0, max: priorityLevelsMax }) ?? 0;
  if (priorityLevels > 0 && (defaultPriorityLevel < 1 || defaultPriorityLevel > priorityLevels)) {
    throw intarsiaError(
      'MODEL_INVALID',
      `${reader.placeOf('default_priority_level')}: default_priority_level is from 1 to ${priorityLevels} (priority_levels); found ${defaultPriorityLevel}`,
      { place: reader.placeOf('default_priority_level') },
    );
  }
  const priorityQueuePolicies = new Map<number, QueuePolicy>();
  for (const [key, policy] of reader.messageMap('priority_queue_policy')) {
    const level = /^[0-9]{1,9}$/.test(key) ? Number(key) : 0;
    if (level < 1 || level > priorityLevels) {
      throw intarsiaError(
        'MODEL_INVALID',
        `${policy.place}: priority_queue_policy has a policy for level ${key.slice(0, 20)}; levels are 1 to ${priorityLevels} (priority_levels)`,
        { place: policy.place },
      );
    }
    priorityQueuePolicies.set(level, readQueuePolicy(policy));
  }
  const defaultPolicy = reader.message('default_queue_policy');
  const batching: DynamicBatching = {
    preferredBatchSizes: readBatchSizes(reader),
    queueDelayUsMax: reader.integer('max_queue_delay_microseconds', microsecondsRange) ?? 0,
    preserveOrdering: reader.bool('preserve_ordering') ?? false,
    priorityLevels,
    defaultPriorityLevel,
    defaultQueuePolicy: defaultPolicy === undefined ? defaultQueuePolicy : readQueuePolicy(defaultPolicy),
    priorityQueuePolicies,
  };
  reader.finish();
  return batching;
}

const timeoutActions: readonly QueuePolicy['timeoutAction'][] = ['REJECT', 'DELAY'];
const timeoutActionsByName = new Map(timeoutActions.map((action) => [action, action]));
const timeoutActionsByNumber = new Map(timeoutActions.map((action, number) => [number, action]));

function readQueuePolicy(reader: FieldReader): QueuePolicy {
  const policy: QueuePolicy = {
    timeoutAction: reader.choice('timeout_action', timeoutActionsByName, timeoutActionsByNumber) ?? 'REJECT',
    defaultTimeoutUs: reader.integer('default_timeout_microseconds', microsecondsRange) ?? 0,
    allowTimeoutOverride: reader.bool('allow_timeout_override') ?? false,
    sizeMax: reader.integer('max_queue_size', { min: 0, max: 2 ** 32 - 1 }) ?? 0,
  };
  reader.finish();
  return policy;
}

/** Triton's default: a sequence silent for a second is forgotten. */
const defaultIdleUs = 1_000_000;

export function readSequenceBatching(reader: FieldReader): SequenceBatching {
  refuseTwoOf(reader, ['direct', 'oldest']);
  reader.refuse('a request runs once', 'iterative_sequence', 'generative_sequence');
  const idleUs = reader.integer('max_sequence_idle_microseconds', microsecondsRange) ?? 0;
  const batching: SequenceBatching = {
    idleUsMax: idleUs === 0 ? defaultIdleUs : idleUs,
    controls: reader.messages('control_input').flatMap(readControls),
    states: reader.messages('state').map(readState),
    strategy: readStrategy(reader),
  };
  reader.finish();
  return batching;
}

function readStrategy(reader: FieldReader): SequenceBatching['strategy'] {
  const oldest = reader.message('oldest');
  if (oldest !== undefined) {
    const strategy: SequenceBatching['strategy'] = {
      kind: 'oldest',
      candidateSequencesMax: oldest.integer('max_candidate_sequences', { min: 0, max: int32Max }) ?? 0,
      preferredBatchSizes: readBatchSizes(oldest),
      queueDelayUsMax: oldest.integer('max_queue_delay_microseconds', microsecondsRange) ?? 0,
      preserveOrdering: oldest.bool('preserve_ordering') ?? false,
    };
    oldest.finish();
    if (strategy.candidateSequencesMax === 0) {
      throw intarsiaError(
        'MODEL_INVALID',
        `${oldest.place}: max_candidate_sequences is at least 1 in sequence_batching.oldest`,
        { place: oldest.place },
      );
    }
    return strategy;
  }
  const direct = reader.message('direct');
  const strategy: SequenceBatching['strategy'] = {
    kind: 'direct',
    queueDelayUsMax: direct?.integer('max_queue_delay_microseconds', microsecondsRange) ?? 0,
    minimumSlotUtilization: direct?.number('minimum_slot_utilization') ?? 0,
  };
  direct?.finish();
  if (!(strategy.minimumSlotUtilization >= 0 && strategy.minimumSlotUtilization <= 1)) {
    const place = direct?.placeOf('minimum_slot_utilization') ?? reader.place;
    throw intarsiaError(
      'MODEL_INVALID',
      `${place}: minimum_slot_utilization is from 0 to 1; found ${strategy.minimumSlotUtilization}`,
      { place },
    );
  }
  return strategy;
}

const controlKinds: readonly SequenceControlKind[] = ['START', 'READY', 'END', 'CORRID'];
const controlKindsByName = new Map(controlKinds.map((kind) => [`CONTROL_SEQUENCE_${kind}`, kind]));
const controlKindsByNumber = new Map(controlKinds.map((kind, number) => [number, kind]));
const correlationTypes: ReadonlySet<Datatype> = new Set(['UINT64', 'INT64', 'UINT32', 'INT32', 'BYTES']);

function readControls(reader: FieldReader): SequenceControl[] {
  const name = requiredString(reader, 'name');
  const controls = reader.messages('control').map((control) => readControl(control, name));
  reader.finish();
  if (controls.length !== 1) {
    throw intarsiaError(
      'MODEL_INVALID',
      `${reader.place}: control_input ${JSON.stringify(name)} has ${controls.length} controls; a tensor carries one`,
      { place: reader.place },
    );
  }
  return controls;
}

function readControl(reader: FieldReader, name: string): SequenceControl {
  const kind = reader.choice('kind', controlKindsByName, controlKindsByNumber) ?? 'START';
  const corridType = reader.has('data_type') ? readControlType(reader) : undefined;
  const candidates: { readonly datatype: Datatype; readonly values: readonly number[] }[] = [
    { datatype: 'INT32', values: reader.integers('int32_false_true', { min: -int32Max - 1, max: int32Max }) },
    { datatype: 'FP32', values: reader.numbers('fp32_false_true') },
    { datatype: 'BOOL', values: reader.bools('bool_false_true').map(Number) },
  ];
  reader.finish();
  if (kind === 'CORRID') {
    if (corridType === undefined || !correlationTypes.has(corridType)) {
      throw intarsiaError(
        'MODEL_INVALID',
        `${reader.place}: CONTROL_SEQUENCE_CORRID ${JSON.stringify(name)} needs data_type TYPE_UINT64, TYPE_INT64, TYPE_UINT32, TYPE_INT32 or TYPE_STRING`,
        { place: reader.place },
      );
    }
    return { name, kind, datatype: corridType, falseTrue: [0, 0] };
  }
  const given = candidates.filter(({ values }) => values.length > 0);
  const [first] = given;
  const [no, yes] = first?.values ?? [];
  if (first === undefined || given.length !== 1 || first.values.length !== 2 || no === undefined || yes === undefined) {
    throw intarsiaError(
      'MODEL_INVALID',
      `${reader.place}: CONTROL_SEQUENCE_${kind} ${JSON.stringify(name)} needs one of int32_false_true, fp32_false_true and bool_false_true, with two values`,
      { place: reader.place },
    );
  }
  return { name, kind, datatype: first.datatype, falseTrue: [no, yes] };
}

/** `data_type` of a control; TYPE_INVALID, which Triton writes for "none", counts as absent. */
function readControlType(reader: FieldReader): Datatype | undefined {
  return reader.isWord('data_type', ['TYPE_INVALID', '0']) ? undefined : readDatatype(reader);
}

function readState(reader: FieldReader): SequenceState {
  reader.ignore('states are kept in memory of the host', 'use_same_buffer_for_input_output', 'use_growable_memory');
  const datatype = readDatatype(reader);
  const dims = readShape(reader, 'dims');
  const inputName = requiredString(reader, 'input_name');
  const outputName = requiredString(reader, 'output_name');
  const [initial] = reader.messages('initial_state');
  const initialFile = initial === undefined ? undefined : readInitialState(initial);
  reader.finish();
  if (datatype === undefined || dims.length === 0) {
    throw intarsiaError(
      'MODEL_INVALID',
      `${reader.place}: state ${JSON.stringify(inputName)} needs data_type and dims`,
      {
        place: reader.place,
      },
    );
  }
  return { inputName, outputName, datatype, dims, ...(initialFile === undefined ? {} : { initialFile }) };
}

function readInitialState(reader: FieldReader): string | undefined {
  refuseTwoOf(reader, ['zero_data', 'data_file']);
  readDatatype(reader);
  readShape(reader, 'dims');
  reader.string('name');
  reader.bool('zero_data');
  const file = readFileName(reader, 'data_file');
  reader.finish();
  return file;
}

function readBatchSizes(reader: FieldReader): readonly number[] {
  const sizes = reader.integers('preferred_batch_size', { min: 1, max: int32Max });
  return [...new Set(sizes)].sort((a, b) => a - b);
}
