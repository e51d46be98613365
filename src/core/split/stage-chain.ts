/**
 * A request on its way through the stages of a split model: what each stage is asked for, what is carried past it, and what
 * the client gets in the end. Whoever ran a stage makes the next request out of this, so that no host but the first needs to
 * know the model, and values go straight from where they are made to where they are used.
 */
import { intarsiaError, invariant } from '../errors.js';
import type { InferenceRequest } from '../inference.js';
import { dataBytes, type Tensor } from '../tensor.js';
import { packTensor, unpackTensor, type PackedTensor } from './activation-codec.js';
import type { SplitRoute, StageChain, StageInterface } from './stage-route.js';

type StageRequest = Pick<InferenceRequest, 'model' | 'inputs' | 'outputs' | 'items' | 'batchKey' | 'bytes'> & {
  readonly then: StageChain;
  /** Only where this stage or a later one keeps states: whoever has had the sequence before gets it. */
  readonly sequence?: NonNullable<InferenceRequest['sequence']>;
};

/** The request to the first stage. @param outputs Those that the model has, in order. */
export function firstStage(request: InferenceRequest, route: SplitRoute, outputs: readonly string[]): InferenceRequest {
  const [first, ...stages] = route.stages;
  invariant(first !== undefined, 'a split model has stages');
  const wanted = request.outputs.length === 0 ? outputs : request.outputs;
  const { sequence, ...rest } = request;
  return {
    ...rest,
    ...stageRequest(first, {
      stage: 0,
      stages,
      values: new Map(request.inputs.map((tensor) => [tensor.name, tensor])),
      done: [],
      outputs: wanted,
      compression: route.compression,
      batches: route.batches,
      items: request.items,
      ...(sequence === undefined ? {} : { sequence }),
    }),
  };
}

/**
 * The request to the next stage, made of what this one gave. Only where there is one.
 * @param onPacked Told of each value that was made smaller: bytes before and after, and the largest error.
 */
export function nextStage(
  chain: StageChain,
  outputs: readonly Tensor[],
  onPacked: (packed: PackedTensor) => void = () => {},
): StageRequest {
  const [next, ...stages] = chain.stages;
  invariant(next !== undefined, 'there is a next stage');
  const values = new Map<string, PackedTensor>(chain.carried.map((tensor) => [tensor.name, tensor]));
  const crossing = new Set(chain.stages.flatMap(({ inputs }) => inputs));
  for (const tensor of outputs) {
    if (!crossing.has(tensor.name)) continue;
    const packed = packTensor(tensor, chain.compression);
    if (packed.packing !== undefined) onPacked(packed);
    values.set(tensor.name, packed);
  }
  const wanted = new Set(chain.outputs);
  const done = [...chain.done, ...outputs.filter(({ name }) => wanted.has(name))];
  return stageRequest(next, { ...chain, stage: chain.stage + 1, stages, values, done });
}

/** The client's outputs, once the last stage has run. @throws EXECUTION_FAILED when one did not come out of any stage. */
export function lastOutputs(chain: StageChain, outputs: readonly Tensor[]): readonly Tensor[] {
  if (chain.done.length === 0 && outputs.length === chain.outputs.length) {
    if (outputs.every(({ name }, index) => name === chain.outputs[index])) return outputs;
  }
  const made = new Map([...chain.done, ...outputs].map((tensor) => [tensor.name, tensor]));
  return chain.outputs.map((name) => {
    const tensor = made.get(name);
    if (tensor === undefined) {
      throw intarsiaError('EXECUTION_FAILED', `output '${name}' did not come out of any stage`, { output: name });
    }
    return tensor;
  });
}

/** Whether a stage's outputs go to later stages as they are and to nobody else: none is the client's, and none is packed. */
export function isOnlySentOn({ stages, done, outputs, compression }: StageChain): boolean {
  if (stages.length === 0 || compression !== 'none') return false;
  const elsewhere = new Set([...stages.flatMap((each) => each.outputs), ...done.map(({ name }) => name)]);
  return outputs.every((name) => elsewhere.has(name));
}

/** The inputs as a device takes them: unpacked. */
export function stageInputs(inputs: readonly PackedTensor[]): readonly Tensor[] {
  return inputs.some(({ packing }) => packing !== undefined) ? inputs.map(unpackTensor) : inputs;
}

interface Step extends Omit<StageChain, 'carried'> {
  /** Everything that is there for this stage and later ones. */
  readonly values: ReadonlyMap<string, PackedTensor>;
}

function stageRequest(stage: StageInterface, { values, ...chain }: Step): StageRequest {
  // An optional input that the client left out is absent here too.
  const inputs = stage.inputs.flatMap((name) => values.get(name) ?? []);
  const later = new Set(chain.stages.flatMap((each) => each.inputs));
  const made = new Set(stage.outputs);
  const carried = [...values.values()].filter(({ name }) => later.has(name) && !made.has(name));
  const needed = stage.outputs.filter((name) => later.has(name) || chain.outputs.includes(name));
  const outputs = needed.length === stage.outputs.length ? [] : needed;
  const items = chain.batches ? chain.items : 1;
  const { sequence } = chain;
  const isKept = stage.stateful === true || chain.stages.some(({ stateful }) => stateful === true);
  const bytes = [...inputs, ...carried, ...chain.done].reduce((sum, tensor) => sum + dataBytes(tensor), 0);
  return {
    model: stage.model,
    inputs,
    outputs,
    items,
    batchKey: chain.batches ? batchKey(inputs, outputs) : '',
    bytes,
    then: { ...chain, carried },
    ...(sequence === undefined || !isKept ? {} : { sequence }),
  };
}

/** Requests may share a batch when everything but the batch is alike. */
function batchKey(inputs: readonly Tensor[], outputs: readonly string[]): string {
  const shapes = inputs.map(({ name, shape }) => `${name} ${shape.slice(1).join(',')}`);
  return [...shapes, '', ...outputs].join('\n');
}
