/**
 * Whether a request fits a model: names, datatypes, shapes, batch size and byte counts, in Triton's words where Triton has
 * words. What is the same for every request of a model is computed once per loaded version.
 */
import type { ServedModel } from '#core/catalog.js';
import { datatypeBytes } from '#core/datatype.js';
import { intarsiaError } from '#core/errors.js';
import type { InferenceRequest } from '#core/inference.js';
import type { InferRequestMessage, InferTensor } from '#core/inference-message.js';
import { isSloClass, sloClasses, type SloClass } from '#core/scheduling/slo-class.js';
import { spreadRuleOf, type SpreadRule } from '#core/split/spread-rule.js';
import { countBytesElements, formatShape, shapeFits, type Tensor, type TensorSpec } from '#core/tensor.js';

/** The parts of an InferenceRequest that follow from tensors and model alone. */
export type CheckedTensors = Pick<InferenceRequest, 'inputs' | 'outputs' | 'items' | 'batchKey' | 'bytes'>;

const noNames: readonly string[] = [];

export class ModelCheck {
  readonly model: ServedModel;
  /** Target of the model's requests, ms; 0 for none, and their class, where a request says neither. */
  readonly sloMs: number;
  readonly sloClass: SloClass | undefined;
  /** Undefined: no request of the model is spread. */
  readonly spread: SpreadRule | undefined;
  readonly #name: string;
  readonly #batchMax: number;
  /** Items that one request may have: those of a batch, or more where requests are spread. */
  readonly #itemsMax: number;
  readonly #inputs: ReadonlyMap<string, number>;
  readonly #outputs: ReadonlySet<string>;
  /** Whether every dimension but the batch is fixed and every input required: then shapes never tell requests apart. */
  readonly #fixed: boolean;

  /** @throws MODEL_INVALID when the model's own target is none, or its requests cannot be spread as it says. */
  constructor(model: ServedModel) {
    this.model = model;
    const { sloMs, sloClass } = sloOf(model);
    this.sloMs = sloMs;
    this.sloClass = sloClass;
    this.spread = spreadRuleOf(model.config, model.strategy);
    this.#name = model.name;
    this.#batchMax = model.config.maxBatchSize;
    this.#itemsMax = this.spread?.itemsMax ?? this.#batchMax;
    this.#inputs = new Map(model.inputs.map(({ name }, index) => [name, index]));
    this.#outputs = new Set(model.outputs.map(({ name }) => name));
    const from = this.#batchMax > 0 ? 1 : 0;
    this.#fixed = model.optionalInputs.size === 0 && model.inputs.every(({ shape }) => !shape.slice(from).includes(-1));
  }

  /** @throws INVALID_ARGUMENT naming the tensor, what was expected and what came. */
  check(message: InferRequestMessage): CheckedTensors {
    const slots = new Array<Tensor | undefined>(this.#inputs.size);
    let bytes = 0;
    let items = 1;
    for (let index = 0; index < message.inputs.length; index += 1) {
      const tensor = message.inputs[index] as InferTensor;
      const slot = this.#inputs.get(tensor.name);
      if (slot === undefined) {
        throw refused(`unexpected inference input '${shortened(tensor.name)}' for model '${this.#name}'`);
      }
      if (slots[slot] !== undefined) throw refused(`input '${tensor.name}' already exists in request`);
      const spec = this.model.inputs[slot] as TensorSpec;
      this.#checkTensor(tensor, spec);
      if (this.#batchMax > 0) {
        const batch = tensor.shape[0] as number;
        if (index > 0 && batch !== items) {
          throw refused(
            `input '${tensor.name}' batch size does not match other inputs for '${this.#name}': ${batch} and ${items}`,
          );
        }
        items = batch;
      }
      slots[slot] = tensor as InferTensor & Tensor;
      bytes += tensor.data.byteLength;
    }
    if (message.inputs.length < slots.length) this.#checkMissing(slots);
    const inputs =
      message.inputs.length === slots.length ? (slots as Tensor[]) : slots.filter((slot) => slot !== undefined);
    const outputs = message.outputs.length === 0 ? noNames : this.#requestedOutputs(message);
    return { inputs, outputs, items, bytes, batchKey: this.#batchKey(slots, outputs) };
  }

  #checkTensor(tensor: InferTensor, spec: TensorSpec): void {
    if (tensor.parameters.size > 0 && tensor.parameters.has('shared_memory_region')) {
      throw intarsiaError(
        'UNIMPLEMENTED',
        `input '${tensor.name}' lies in shared memory, which this host does not offer`,
      );
    }
    if (tensor.datatype !== spec.datatype) {
      throw refused(
        `inference input '${tensor.name}' data-type is '${shortened(tensor.datatype)}', but model '${this.#name}' expects '${spec.datatype}'`,
      );
    }
    const { shape } = tensor;
    if (this.#batchMax > 0 && shape.length === spec.shape.length) {
      const batch = shape[0] as number;
      if (batch > this.#itemsMax) {
        throw refused(`inference request batch-size must be <= ${this.#itemsMax} for '${this.#name}'; it is ${batch}`);
      }
      if (batch < 1) throw refused(`inference request batch-size must be >= 1 for '${this.#name}'; it is ${batch}`);
    }
    if (!shapeFits(shape, spec.shape)) throw this.#wrongShape(tensor, spec);
    let elements = 1;
    for (let axis = 0; axis < shape.length; axis += 1) {
      const size = shape[axis] as number;
      if (size < 0) throw this.#wrongShape(tensor, spec);
      elements *= size;
    }
    const elementBytes = datatypeBytes(spec.datatype);
    if (elementBytes === 0) {
      const count = countBytesElements(tensor.data);
      if (count !== elements) {
        throw refused(
          `expected ${elements} string elements for inference input '${tensor.name}' of model '${this.#name}', got ${count}`,
        );
      }
    } else if (elements * elementBytes !== tensor.data.byteLength) {
      throw refused(
        `input byte size mismatch for input '${tensor.name}' for model '${this.#name}'. Expected ${elements * elementBytes}, got ${tensor.data.byteLength}`,
      );
    }
  }

  #wrongShape(tensor: InferTensor, spec: TensorSpec): Error {
    const note =
      this.#batchMax > 0 && tensor.shape.length === spec.shape.length - 1
        ? '. NOTE: a model that batches takes a batch dimension in front of each input shape'
        : '';
    return refused(
      `unexpected shape for input '${tensor.name}' for model '${this.#name}'. Expected ${formatShape(spec.shape)}, got ${formatShape(tensor.shape)}${note}`,
    );
  }

  #checkMissing(slots: readonly (Tensor | undefined)[]): void {
    const { inputs, optionalInputs } = this.model;
    const missing = inputs.filter(({ name }, index) => slots[index] === undefined && !optionalInputs.has(name));
    if (missing.length === 0) return;
    const quoted = (names: readonly string[]): string => `[${names.map((name) => `'${name}'`).join(',')}]`;
    const got = inputs.filter((_, index) => slots[index] !== undefined);
    throw refused(
      `expected ${inputs.length - optionalInputs.size} inputs but got ${got.length} inputs for model '${this.#name}'. ` +
        `Got input(s) ${quoted(got.map(({ name }) => name))}, but missing required input(s) ` +
        `${quoted(missing.map(({ name }) => name))}. Please provide all required input(s).`,
    );
  }

  #requestedOutputs(message: InferRequestMessage): readonly string[] {
    const names: string[] = [];
    for (const { name, parameters } of message.outputs) {
      if (!this.#outputs.has(name)) {
        throw refused(`unexpected inference output '${shortened(name)}' for model '${this.#name}'`);
      }
      if (names.includes(name)) throw refused(`output '${name}' already exists in request`);
      if (parameters.size > 0 && parameters.has('shared_memory_region')) {
        throw intarsiaError(
          'UNIMPLEMENTED',
          `output '${name}' is wanted in shared memory, which this host does not offer`,
        );
      }
      names.push(name);
    }
    return names;
  }

  #batchKey(slots: readonly (Tensor | undefined)[], outputs: readonly string[]): string {
    if (this.#fixed) return outputs.length === 0 ? '' : outputs.join('\n');
    const from = this.#batchMax > 0 ? 1 : 0;
    let key = '';
    for (const slot of slots) {
      if (slot !== undefined) {
        for (let axis = from; axis < slot.shape.length; axis += 1) key += `${slot.shape[axis] as number},`;
      } else key += '-';
      key += ';';
    }
    return outputs.length === 0 ? key : `${key}\n${outputs.join('\n')}`;
  }
}

function refused(message: string): Error {
  return intarsiaError('INVALID_ARGUMENT', message);
}

/** Names come from the client and may be long. */
function shortened(text: string): string {
  return text.length <= 80 ? text : `${text.slice(0, 80)}…`;
}

/** What the model's configuration says in `intarsia_slo_ms` and `intarsia_slo_class`. */
function sloOf({ name, config }: ServedModel): { readonly sloMs: number; readonly sloClass: SloClass | undefined } {
  const ms = config.parameters.get('intarsia_slo_ms');
  const sloClass = config.parameters.get('intarsia_slo_class');
  const sloMs = ms === undefined ? 0 : Number(ms);
  if (ms !== undefined && !(sloMs > 0 && sloMs < Infinity)) {
    throw intarsiaError('MODEL_INVALID', `model '${name}': parameter intarsia_slo_ms is '${ms}'; it must be above 0`);
  }
  if (sloClass !== undefined && !isSloClass(sloClass)) {
    throw intarsiaError(
      'MODEL_INVALID',
      `model '${name}': parameter intarsia_slo_class is '${sloClass}'; it may be ${sloClasses.join(', ')}`,
    );
  }
  return { sloMs, sloClass };
}
