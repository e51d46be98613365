/** A model's configuration as the message that clients and load generators read. */
import { tritonDatatypeNumber, type Datatype } from '#core/datatype.js';
import type {
  DynamicBatching,
  InstanceKind,
  ModelConfig,
  QueuePolicy,
  SequenceBatching,
  SequenceControl,
  SequenceControlKind,
  VersionPolicy,
} from '#core/model-config.js';
import type { Shape } from '#core/tensor.js';
import {
  ModelConfig as ModelConfigMessage,
  ModelDynamicBatching,
  ModelInput,
  ModelInput_Format,
  ModelInstanceGroup,
  ModelInstanceGroup_Kind,
  ModelOutput,
  ModelQueuePolicy,
  ModelQueuePolicy_TimeoutAction,
  ModelSequenceBatching,
  ModelSequenceBatching_Control,
  ModelSequenceBatching_Control_Kind,
  ModelSequenceBatching_ControlInput,
  ModelSequenceBatching_State,
  type ModelVersionPolicy,
  ModelWarmup,
  type DataType,
  type ModelWarmup_Input,
} from '#gen/model-config.js';

export function modelConfigMessage(config: ModelConfig): ModelConfigMessage {
  return ModelConfigMessage.create({
    name: config.name,
    platform: config.platform,
    backend: config.backend,
    versionPolicy: versionPolicy(config.versionPolicy),
    maxBatchSize: config.maxBatchSize,
    input: config.inputs.map((input) =>
      ModelInput.create({
        name: input.name,
        dataType: dataType(input.datatype),
        format: ModelInput_Format[input.format],
        dims: int64s(input.dims),
        ...(input.reshape === undefined ? {} : { reshape: { shape: int64s(input.reshape) } }),
        optional: input.optional,
      }),
    ),
    output: config.outputs.map((output) =>
      ModelOutput.create({
        name: output.name,
        dataType: dataType(output.datatype),
        dims: int64s(output.dims),
        ...(output.reshape === undefined ? {} : { reshape: { shape: int64s(output.reshape) } }),
        labelFilename: output.labelFilename,
      }),
    ),
    instanceGroup: config.instanceGroups.map((group) =>
      ModelInstanceGroup.create({
        name: group.name,
        count: group.count,
        gpus: [...group.gpus],
        kind: instanceKind(group.kind),
      }),
    ),
    defaultModelFilename: config.defaultModelFilename,
    metricTags: Object.fromEntries(config.metricTags),
    parameters: Object.fromEntries([...config.parameters].map(([key, value]) => [key, { stringValue: value }])),
    schedulingChoice: scheduling(config),
    modelWarmup: config.warmups.map((warmup) =>
      ModelWarmup.create({
        name: warmup.name,
        batchSize: warmup.batchSize,
        count: warmup.count,
        inputs: Object.fromEntries(warmup.inputs.map((input) => [input.name, warmupInput(input)])),
      }),
    ),
    modelTransactionPolicy: { decoupled: false },
  });
}

function scheduling(config: ModelConfig): ModelConfigMessage['schedulingChoice'] {
  if (config.sequenceBatching !== undefined) {
    return { oneofKind: 'sequenceBatching', sequenceBatching: sequenceBatching(config.sequenceBatching) };
  }
  if (config.dynamicBatching !== undefined) {
    return { oneofKind: 'dynamicBatching', dynamicBatching: dynamicBatching(config.dynamicBatching) };
  }
  return { oneofKind: undefined };
}

function dynamicBatching(batching: DynamicBatching): ModelDynamicBatching {
  return ModelDynamicBatching.create({
    preferredBatchSize: [...batching.preferredBatchSizes],
    maxQueueDelayMicroseconds: BigInt(batching.queueDelayUsMax),
    preserveOrdering: batching.preserveOrdering,
    priorityLevels: BigInt(batching.priorityLevels),
    defaultPriorityLevel: BigInt(batching.defaultPriorityLevel),
    defaultQueuePolicy: queuePolicy(batching.defaultQueuePolicy),
    priorityQueuePolicy: Object.fromEntries(
      [...batching.priorityQueuePolicies].map(([level, policy]) => [String(level), queuePolicy(policy)]),
    ),
  });
}

function queuePolicy(policy: QueuePolicy): ModelQueuePolicy {
  return ModelQueuePolicy.create({
    timeoutAction: ModelQueuePolicy_TimeoutAction[policy.timeoutAction],
    defaultTimeoutMicroseconds: BigInt(policy.defaultTimeoutUs),
    allowTimeoutOverride: policy.allowTimeoutOverride,
    maxQueueSize: policy.sizeMax,
  });
}

function sequenceBatching(batching: SequenceBatching): ModelSequenceBatching {
  const { strategy } = batching;
  return ModelSequenceBatching.create({
    maxSequenceIdleMicroseconds: BigInt(batching.idleUsMax),
    controlInput: batching.controls.map((control) =>
      ModelSequenceBatching_ControlInput.create({ name: control.name, control: [sequenceControl(control)] }),
    ),
    state: batching.states.map((state) =>
      ModelSequenceBatching_State.create({
        inputName: state.inputName,
        outputName: state.outputName,
        dataType: dataType(state.datatype),
        dims: int64s(state.dims),
      }),
    ),
    strategyChoice:
      strategy.kind === 'direct'
        ? {
            oneofKind: 'direct',
            direct: {
              maxQueueDelayMicroseconds: BigInt(strategy.queueDelayUsMax),
              minimumSlotUtilization: strategy.minimumSlotUtilization,
            },
          }
        : {
            oneofKind: 'oldest',
            oldest: {
              maxCandidateSequences: strategy.candidateSequencesMax,
              preferredBatchSize: [...strategy.preferredBatchSizes],
              maxQueueDelayMicroseconds: BigInt(strategy.queueDelayUsMax),
              preserveOrdering: strategy.preserveOrdering,
            },
          },
  });
}

function sequenceControl(control: SequenceControl): ModelSequenceBatching_Control {
  const values = [...control.falseTrue];
  return ModelSequenceBatching_Control.create({
    kind: controlKind(control.kind),
    ...(control.kind === 'CORRID'
      ? { dataType: dataType(control.datatype) }
      : control.datatype === 'INT32'
        ? { int32FalseTrue: values }
        : control.datatype === 'BOOL'
          ? { boolFalseTrue: values.map((value) => value !== 0) }
          : { fp32FalseTrue: values }),
  });
}

function controlKind(kind: SequenceControlKind): ModelSequenceBatching_Control_Kind {
  return ModelSequenceBatching_Control_Kind[`CONTROL_SEQUENCE_${kind}`];
}

function instanceKind(kind: InstanceKind): ModelInstanceGroup_Kind {
  return ModelInstanceGroup_Kind[kind];
}

function versionPolicy(policy: VersionPolicy): ModelVersionPolicy {
  switch (policy.kind) {
    case 'latest':
      return { policyChoice: { oneofKind: 'latest', latest: { numVersions: policy.count } } };
    case 'all':
      return { policyChoice: { oneofKind: 'all', all: {} } };
    case 'specific':
      return { policyChoice: { oneofKind: 'specific', specific: { versions: policy.versions.map(BigInt) } } };
  }
}

function warmupInput(input: ModelConfig['warmups'][number]['inputs'][number]): ModelWarmup_Input {
  const { source } = input;
  return {
    dataType: dataType(input.datatype),
    dims: int64s(input.dims),
    inputDataType:
      source.kind === 'file'
        ? { oneofKind: 'inputDataFile', inputDataFile: source.file }
        : source.kind === 'zero'
          ? { oneofKind: 'zeroData', zeroData: true }
          : { oneofKind: 'randomData', randomData: true },
  };
}

function dataType(datatype: Datatype): DataType {
  return tritonDatatypeNumber[datatype] as DataType;
}

function int64s(shape: Shape): bigint[] {
  return shape.map(BigInt);
}
