import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { IntarsiaError } from '#core/errors.js';
import { completeModelConfig } from '#core/model-config-completion.js';
import { modelConfigFromJson, modelConfigToJson } from '#core/model-config-json.js';
import { artifactInputs, artifactOutputs, clientInputs, clientOutputs } from '#core/model-config-specs.js';
import { modelConfigFromPbtxt } from '#core/model-config-text.js';
import { defaultDynamicBatching, defaultQueuePolicy } from '#core/model-config.js';
import { readModelFacts, type ModelFacts } from '#core/onnx/model-facts.js';
import { modelBytes, node, tensorType, value, type Dims } from './onnx-bytes.js';

type Values = Readonly<Record<string, readonly [dataType: number, dims: Dims | undefined]>>;

function facts(inputs: Values, outputs: Values): ModelFacts {
  const values = (list: Values) =>
    Object.entries(list).map(([name, [type, dims]]) => value(name, tensorType(type, dims)));
  return readModelFacts(
    modelBytes({ nodes: [node('Some', ['x'], ['y'])], inputs: values(inputs), outputs: values(outputs) }),
  );
}

const float = 1;
const int32 = 6;
const int64 = 7;
const image = facts({ x: [float, ['batch', 3, 224, 224]] }, { y: [float, ['batch', 1000]] });

function complete(text: string | undefined, model: ModelFacts, name = 'm') {
  return completeModelConfig(text === undefined ? undefined : modelConfigFromPbtxt(text, 'config.pbtxt'), model, name);
}

function refusal(run: () => unknown): string {
  try {
    run();
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(IntarsiaError);
    expect((thrown as IntarsiaError).code).toBe('MODEL_INVALID');
    return (thrown as IntarsiaError).message;
  }
  throw new Error('the configuration was accepted');
}

describe('a configuration that is not written', () => {
  it('comes from the model, with batches of 32 when every first dimension is the batch', () => {
    expect(complete(undefined, image)).toEqual({
      name: 'm',
      platform: 'onnxruntime_onnx',
      backend: 'onnxruntime',
      maxBatchSize: 32,
      inputs: [{ name: 'x', datatype: 'FP32', dims: [3, 224, 224], format: 'NONE', optional: false }],
      outputs: [{ name: 'y', datatype: 'FP32', dims: [1000], labelFilename: '' }],
      versionPolicy: { kind: 'latest', count: 1 },
      instanceGroups: [{ name: 'm', kind: 'AUTO', count: 1, gpus: [] }],
      defaultModelFilename: 'model.onnx',
      dynamicBatching: defaultDynamicBatching,
      warmups: [],
      parameters: new Map(),
      metricTags: new Map(),
    });
  });

  it.each<[string, Values, Values, number]>([
    ['unnamed first dimensions', { x: [float, [-1, 4]] }, { y: [float, [undefined, 2]] }, 32],
    ['names that an exporter made up', { x: [float, ['unk__6', 4]] }, { y: [float, ['unk__7', 2]] }, 32],
    ['a fixed first dimension of an output', { x: [float, ['n', 4]] }, { y: [float, [1, 2]] }, 0],
    ['a scalar output', { x: [float, ['n', 4]] }, { y: [float, []] }, 0],
    ['an output of unknown rank', { x: [float, ['n', 4]] }, { y: [float, undefined] }, 0],
    ['first dimensions of two names', { x: [float, ['n', 4]] }, { y: [float, ['boxes', 2]] }, 0],
    ['a named and an unnamed first dimension', { x: [float, ['n', 4]] }, { y: [float, [-1, 2]] }, 0],
    [
      'a first dimension that is a length',
      { x: [int64, ['sequence_length']] },
      { y: [float, ['sequence_length', 8]] },
      0,
    ],
    ['no inputs', {}, { y: [float, ['n']] }, 0],
  ])('batches or not: %s', (_name, inputs, outputs, batch) => {
    const config = complete(undefined, facts(inputs, outputs));
    expect(config.maxBatchSize).toBe(batch);
    expect(config.dynamicBatching).toEqual(batch === 0 ? undefined : defaultDynamicBatching);
  });

  it('shows a tensor without dimensions of its own as one of size 1, as Triton does', () => {
    const config = complete(undefined, facts({ x: [float, ['n']] }, { y: [float, ['n', 2]] }));
    expect(config.inputs[0]).toMatchObject({ dims: [1], reshape: [] });
    expect(clientInputs(config)).toEqual([{ name: 'x', datatype: 'FP32', shape: [-1, 1] }]);
    expect(complete(undefined, facts({ x: [float, []] }, { y: [float, [2]] })).inputs[0]).toMatchObject({
      dims: [1],
      reshape: [],
    });
  });

  it('asks for what the model does not say', () => {
    expect(refusal(() => complete(undefined, facts({ x: [float, undefined] }, { y: [float, [1]] })))).toBe(
      'model "m" does not say how many dimensions its input "x" has; write its dims in config.pbtxt',
    );
    expect(refusal(() => complete(undefined, facts({ x: [float, [1]] }, { y: [0, [1]] })))).toBe(
      'model "m" does not say the type of its output "y"; write its data_type in config.pbtxt',
    );
  });
});

describe('a configuration that is written in part', () => {
  it('takes inputs and outputs from the model and keeps the rest', () => {
    const config = complete('max_batch_size: 4 version_policy { all { } }', image);
    expect(config).toMatchObject({ maxBatchSize: 4, versionPolicy: { kind: 'all' }, dynamicBatching: {} });
    expect(config.inputs[0]?.dims).toEqual([3, 224, 224]);
    const unbatched = complete('max_batch_size: 0', image);
    expect(unbatched.inputs[0]?.dims).toEqual([-1, 3, 224, 224]);
    expect(unbatched.dynamicBatching).toBeUndefined();
  });

  it('takes 0 as max_batch_size when inputs and outputs are written without one', () => {
    const config = complete(
      'input { name: "x" data_type: TYPE_FP32 dims: [-1, 3, 224, 224] } output { name: "y" dims: [-1, 1000] }',
      image,
    );
    expect(config).toMatchObject({ maxBatchSize: 0, outputs: [{ datatype: 'FP32' }] });
    expect(config.dynamicBatching).toBeUndefined();
  });

  it('completes single entries by type and shape', () => {
    const config = complete(
      'max_batch_size: 2 input { name: "x" format: FORMAT_NCHW } output { name: "y" label_filename: "l.txt" }',
      image,
    );
    expect(config.inputs).toEqual([
      { name: 'x', datatype: 'FP32', dims: [3, 224, 224], format: 'NCHW', optional: false },
    ]);
    expect(config.outputs).toEqual([{ name: 'y', datatype: 'FP32', dims: [1000], labelFilename: 'l.txt' }]);
  });
});

describe('reading the fields', () => {
  it('reads everything that a scheduler and a device need', () => {
    const draft = modelConfigFromPbtxt(
      `name: "m" backend: "onnxruntime" max_batch_size: 16
       version_policy: { specific: { versions: [1, 3] } }
       instance_group [ { count: 2 kind: KIND_GPU gpus: [0, 1] rate_limiter { priority: 1 } } ]
       dynamic_batching {
         preferred_batch_size: [ 8, 4 ] max_queue_delay_microseconds: 100 preserve_ordering: true
         priority_levels: 3 default_priority_level: 2
         default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 5000 allow_timeout_override: true max_queue_size: 7 }
         priority_queue_policy { key: 1 value: { max_queue_size: 2 } }
       }
       optimization { graph { level: -1 } }
       parameters { key: "intarsia_devices" value: { string_value: "cpu:0" } }
       metric_tags { key: "team" value: "vision" }
       model_warmup [ { name: "w" batch_size: 4 count: 2 inputs { key: "x" value: { data_type: TYPE_FP32 dims: [3, 2, 2] random_data: true } } } ]`,
      'config.pbtxt',
    );
    expect(draft).toMatchObject({
      maxBatchSize: { value: 16, place: 'config.pbtxt:1:34' },
      versionPolicy: { kind: 'specific', versions: ['1', '3'] },
      instanceGroups: [{ name: '', kind: 'GPU', count: 2, gpus: [0, 1] }],
      optimization: 'basic',
      parameters: new Map([['intarsia_devices', 'cpu:0']]),
      metricTags: new Map([['team', 'vision']]),
    });
    expect(draft.dynamicBatching?.value).toEqual({
      preferredBatchSizes: [4, 8],
      queueDelayUsMax: 100,
      preserveOrdering: true,
      priorityLevels: 3,
      defaultPriorityLevel: 2,
      defaultQueuePolicy: { timeoutAction: 'DELAY', defaultTimeoutUs: 5000, allowTimeoutOverride: true, sizeMax: 7 },
      priorityQueuePolicies: new Map([[1, { ...defaultQueuePolicy, sizeMax: 2 }]]),
    });
    expect(draft.warmups[0]?.value).toEqual({
      name: 'w',
      batchSize: 4,
      count: 2,
      inputs: [{ name: 'x', datatype: 'FP32', dims: [3, 2, 2], source: { kind: 'random' } }],
    });
    expect(draft.notes).toEqual([
      'config.pbtxt:3:64: rate_limiter is ignored: devices share their time by their permits',
    ]);
  });

  it('reads sequences with their controls and states', () => {
    const draft = modelConfigFromPbtxt(
      `sequence_batching {
         oldest { max_candidate_sequences: 4 preferred_batch_size: 2 }
         control_input [
           { name: "START" control [ { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1.5 ] } ] },
           { name: "READY" control { kind: CONTROL_SEQUENCE_READY bool_false_true: [ false, true ] } },
           { name: "ID" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_STRING } } ]
         state { input_name: "h" output_name: "h2" data_type: TYPE_FP32 dims: [ 8 ] initial_state { data_type: TYPE_FP32 dims: [8] data_file: "h0" name: "h0" } }
       }`,
      'config.pbtxt',
    );
    expect(draft.sequenceBatching?.value).toEqual({
      idleUsMax: 1_000_000,
      controls: [
        { name: 'START', kind: 'START', datatype: 'FP32', falseTrue: [0, 1.5] },
        { name: 'READY', kind: 'READY', datatype: 'BOOL', falseTrue: [0, 1] },
        { name: 'ID', kind: 'CORRID', datatype: 'BYTES', falseTrue: [0, 0] },
      ],
      states: [{ inputName: 'h', outputName: 'h2', datatype: 'FP32', dims: [8], initialFile: 'h0' }],
      strategy: {
        kind: 'oldest',
        candidateSequencesMax: 4,
        preferredBatchSizes: [2],
        queueDelayUsMax: 0,
        preserveOrdering: false,
      },
    });
  });

  it.each([
    ['max_batch: 8', 'config.pbtxt:1:1: unknown field "max_batch" in the configuration'],
    ['input {\n  name: "x"\n  dimz: 1 }', 'config.pbtxt:3:3: unknown field "dimz" in input'],
    ['max_batch_size: -1', 'config.pbtxt:1:17: max_batch_size is a whole number from 0 to 2147483647; found -1'],
    ['max_batch_size: "8"', 'config.pbtxt:1:17: max_batch_size is a whole number from 0 to 2147483647; found "8"'],
    [
      'max_batch_size: 8 max_batch_size: 9',
      'config.pbtxt:1:19: max_batch_size appears a second time in the configuration',
    ],
    ['name: m', 'config.pbtxt:1:7: name is a quoted text; found m'],
    ['name { }', 'config.pbtxt:1:6: name is a single value, not a message'],
    ['input: 3', 'config.pbtxt:1:8: input is a message; found 3'],
    ['input { name: "x" data_type: TYPE_FLOAT }', 'config.pbtxt:1:30: data_type is one of TYPE_BOOL, TYPE_UINT8'],
    ['input { data_type: TYPE_FP32 }', 'config.pbtxt:1:7: name is missing in input'],
    ['input { name: "x" } input { name: "x" }', 'config.pbtxt:1:27: input "x" appears a second time'],
    ['input { name: "x" allow_ragged_batch: true }', 'allow_ragged_batch is not supported'],
    ['ensemble_scheduling { step { } }', 'config.pbtxt:1:1: ensemble_scheduling is not supported'],
    ['model_transaction_policy { decoupled: true }', 'config.pbtxt:1:28: decoupled is not supported'],
    ['dynamic_batching { } sequence_batching { }', 'dynamic_batching and sequence_batching exclude each other'],
    ['dynamic_batching { priority_levels: 2 }', 'default_priority_level is from 1 to 2 (priority_levels); found 0'],
    ['default_model_filename: "../x.onnx"', 'is a path inside the model\'s folder without ".."'],
    ['output { name: "y" label_filename: "/etc/passwd" }', 'is a path inside the model\'s folder without ".."'],
    ['sequence_batching { control_input { name: "S" control { } } }', 'needs one of int32_false_true'],
    ['instance_group { passive: true }', 'passive is not supported'],
    [
      'platform: "tensorrt_plan"',
      'config.pbtxt:1:1: platform "tensorrt_plan" is not served here; only onnxruntime_onnx',
    ],
    ['backend: "python"', 'config.pbtxt:1:1: backend "python" is not served here; only onnxruntime'],
    ['name: "other"', 'the configuration is for model "other"; the folder is called "m"'],
  ])('refuses %j with its place', (text, message) => {
    expect(refusal(() => complete(text, image))).toContain(message);
  });
});

describe('comparing configuration and model', () => {
  const entry = (rest: string): string =>
    `max_batch_size: 8 input { ${rest} } output { name: "y" data_type: TYPE_FP32 dims: 1000 }`;

  it.each([
    [entry('name: "z" data_type: TYPE_FP32 dims: 1'), 'input "z" is not an input of model "m"; its inputs are "x"'],
    [
      entry('name: "x" data_type: TYPE_INT32 dims: [3, 224, 224]'),
      'config.pbtxt:1:25: input "x" has type INT32 in the configuration and FP32 in model "m"',
    ],
    [
      entry('name: "x" data_type: TYPE_FP32 dims: [3, 224, 225]'),
      'input "x" has shape [-1,3,224,225] (with the batch dimension in front) in the configuration and [-1,3,224,224] in model "m"',
    ],
    [entry('name: "x" data_type: TYPE_FP32 dims: [224, 224]'), 'input "x" has shape [-1,224,224]'],
    [
      entry('name: "x" data_type: TYPE_FP32 dims: [5] reshape { shape: [3, 224, 224] }'),
      '"x" has dims [5] and reshape [3,224,224] in model "m"; the two hold different numbers of elements',
    ],
    [
      'max_batch_size: 4 dynamic_batching { preferred_batch_size: 8 }',
      'preferred_batch_size 8 is above max_batch_size 4',
    ],
    [
      'parameters { key: "intra_op_thread_count" value { string_value: "many" } }',
      'parameter intra_op_thread_count is "many"; it must be a whole number from 0 to 1024',
    ],
    ['max_batch_size: 4 model_warmup { name: "w" batch_size: 5 }', 'warm-up "w" has batch_size 5; max_batch_size is 4'],
    [
      'max_batch_size: 4 model_warmup { name: "w" inputs { key: "x" value { data_type: TYPE_FP32 dims: [1] zero_data: true } } }',
      'warm-up "w" gives "x" as FP32 [1]; it is FP32 [3,224,224] in model "m"',
    ],
  ])('refuses %j and names both', (text, message) => {
    expect(refusal(() => complete(text, image))).toContain(message);
  });

  it('refuses batches on a model whose first dimension is fixed', () => {
    const fixed = facts({ x: [float, [1, 3]] }, { y: [float, [1, 2]] });
    expect(refusal(() => complete('max_batch_size: 8', fixed))).toContain(
      'max_batch_size is 8, but the first dimension of "x" does not vary in model "m": its shape is [1,3]',
    );
  });

  it('refuses a configuration that forgets an input', () => {
    const two = facts({ x: [float, [1]], z: [float, [1]] }, { y: [float, [1]] });
    expect(refusal(() => complete('input { name: "x" } output { name: "y" }', two))).toBe(
      'config.pbtxt:1:1: model "m" also needs input "z", which the configuration does not have',
    );
  });

  it('leaves sequence controls and states to the server, checked against the model', () => {
    const text = (kind: string): string => `max_batch_size: 8 sequence_batching {
      control_input { name: "START" control { kind: CONTROL_SEQUENCE_START ${kind} } }
      state { input_name: "h" output_name: "h2" data_type: TYPE_FP32 dims: 4 } }`;
    const model = facts(
      { x: [float, ['n', 1]], START: [int32, ['n', 1]], h: [float, ['n', 4]] },
      { y: [float, ['n', 1]], h2: [float, ['n', 4]] },
    );
    const config = complete(text('int32_false_true: [0, 1]'), model);
    expect(config.inputs.map(({ name }) => name)).toEqual(['x']);
    expect(config.outputs.map(({ name }) => name)).toEqual(['y']);
    expect(config.dynamicBatching).toBeUndefined();
    expect(clientOutputs(config)).toEqual([{ name: 'y', datatype: 'FP32', shape: [-1, 1] }]);
    expect(artifactInputs(config, model).map(({ name, shape }) => [name, shape])).toEqual([
      ['x', [-1, 1]],
      ['START', [-1, 1]],
      ['h', [-1, 4]],
    ]);
    expect(artifactOutputs(config, model).map(({ name }) => name)).toEqual(['y', 'h2']);
    expect(refusal(() => complete(text('fp32_false_true: [0, 1]'), model))).toContain(
      'control_input "START" has type FP32 in the configuration and INT32 in model "m"',
    );
  });
});

describe('configurations as JSON', () => {
  it('reads what a load request brings: names in both cases, quoted numbers, maps as objects', () => {
    const draft = modelConfigFromJson(
      JSON.stringify({
        name: 'm',
        maxBatchSize: '8',
        version_policy: { latest: { num_versions: 2 } },
        input: [{ name: 'x', data_type: 'TYPE_FP32', dims: [3, '224', 224] }],
        dynamic_batching: {
          priority_levels: 1,
          default_priority_level: 1,
          priority_queue_policy: { '1': { max_queue_size: 3 } },
        },
        parameters: { someKey: { string_value: 'v' } },
        instance_group: null,
      }),
      'config',
    );
    expect(draft).toMatchObject({
      name: { value: 'm', place: 'config.name' },
      maxBatchSize: { value: 8 },
      versionPolicy: { kind: 'latest', count: 2 },
      inputs: [{ name: 'x', datatype: 'FP32', dims: [3, 224, 224], place: 'config.input[0]' }],
      parameters: new Map([['someKey', 'v']]),
    });
    expect(draft.dynamicBatching?.value.priorityQueuePolicies.get(1)?.sizeMax).toBe(3);
  });

  it.each([
    ['{', 'config: not JSON'],
    ['[]', 'config: a configuration is a JSON object'],
    ['{"input":[{"name":"x","dims":["a"]}]}', 'config.input[0].dims[0]: dims is a whole number'],
    ['{"inputz":1}', 'config.inputz: unknown field "inputz" in the configuration'],
    ['{"input":[[1]]}', 'config.input[0]: a list cannot stand here'],
    ['{"a":'.repeat(50) + '1' + '}'.repeat(50), 'nest deeper than 32'],
  ])('answers %j with a field, not a riddle', (text, message) => {
    expect(refusal(() => modelConfigFromJson(text, 'config'))).toContain(message);
  });

  it('writes the configuration as Triton does and reads it back to the same', () => {
    const config = complete(
      `max_batch_size: 8
       input { name: "x" data_type: TYPE_FP32 dims: [150528] reshape { shape: [3, 224, 224] } }
       output { name: "y" data_type: TYPE_FP32 dims: 1000 label_filename: "labels.txt" }
       dynamic_batching { preferred_batch_size: 4 default_queue_policy { max_queue_size: 9 } }
       parameters { key: "k" value { string_value: "v" } }
       model_warmup { name: "w" batch_size: 2 inputs { key: "x" value { data_type: TYPE_FP32 dims: 150528 input_data_file: "raw" } } }`,
      image,
    );
    const json = modelConfigToJson(config);
    expect(json).toMatchObject({
      name: 'm',
      platform: 'onnxruntime_onnx',
      backend: 'onnxruntime',
      version_policy: { latest: { num_versions: 1 } },
      max_batch_size: 8,
      input: [
        {
          name: 'x',
          data_type: 'TYPE_FP32',
          format: 'FORMAT_NONE',
          dims: [150528],
          reshape: { shape: [3, 224, 224] },
          optional: false,
        },
      ],
      instance_group: [{ name: 'm', kind: 'KIND_AUTO', count: 1, gpus: [] }],
      default_model_filename: 'model.onnx',
      parameters: { k: { string_value: 'v' } },
    });
    const again = completeModelConfig(modelConfigFromJson(JSON.stringify(json), 'config'), image, 'm');
    expect(again).toEqual(config);
  });

  it('writes and reads back sequences', () => {
    const model = facts(
      { x: [float, ['n', 1]], S: [int32, ['n', 1]], h: [float, ['n', 4]] },
      { y: [float, ['n', 1]], h2: [float, ['n', 4]] },
    );
    const config = complete(
      `max_batch_size: 8 sequence_batching { direct { minimum_slot_utilization: 0.5 }
         control_input { name: "S" control { kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ] } }
         state { input_name: "h" output_name: "h2" data_type: TYPE_FP32 dims: 4 } }`,
      model,
    );
    const again = modelConfigFromJson(JSON.stringify(modelConfigToJson(config)), 'config');
    expect(completeModelConfig(again, model, 'm')).toEqual(config);
  });
});

const repository = join(import.meta.dirname, '../../../shared/models/triton-model-repository');

describe("Triton's own example repository", () => {
  it.skipIf(!existsSync(repository))(
    'is read whole, and refused where it is not ONNX (skipped without ../shared/models)',
    () => {
      const outcomes = readdirSync(repository)
        .sort()
        .map((name) => {
          const folder = join(repository, name);
          const draft = modelConfigFromPbtxt(readFileSync(join(folder, 'config.pbtxt'), 'utf8'), 'config.pbtxt');
          const path = join(folder, '1', 'model.onnx');
          const model = existsSync(path) ? readModelFacts(readFileSync(path)) : undefined;
          if (model === undefined) return `${name}: no file, ${draft.inputs.length} input`;
          const config = completeModelConfig(draft, model, name);
          return `${name}: batch ${config.maxBatchSize}, ${config.sequenceBatching?.strategy.kind ?? 'plain'}, ${draft.notes.length} notes`;
        });
      expect(outcomes).toEqual([
        'densenet_onnx: no file, 1 input',
        'inception_onnx: no file, 1 input',
        'simple: batch 8, plain, 0 notes',
        'simple_dyna_sequence: batch 8, oldest, 0 notes',
        'simple_identity: no file, 1 input',
        'simple_int8: batch 8, plain, 0 notes',
        'simple_sequence: batch 8, direct, 0 notes',
        'simple_string: batch 8, plain, 0 notes',
      ]);
    },
  );
});
