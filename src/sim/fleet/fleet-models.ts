/**
 * The models of a simulated fleet as the production code knows models: configurations, placements, a catalogue, messages.
 * Their tensors are one byte an item, so that items alone make requests differ.
 */
import type { Placement } from '#actors/device/protocol.js';
import type { Catalog, CatalogEntry, ServedModel } from '#core/catalog.js';
import { artifactDigest, deviceId, hostId, modelName, modelVersion, type ModelName } from '#core/ids.js';
import { noParameters, type InferParameters, type InferRequestMessage } from '#core/inference-message.js';
import { defaultDynamicBatching, type ModelConfig } from '#core/model-config.js';
import { sloClasses } from '#core/scheduling/slo-class.js';
import type { TensorSpec } from '#core/tensor.js';
import type { Fleet, FleetModel } from './fleet.js';

export const fleetInput: TensorSpec = { name: 'x', datatype: 'UINT8', shape: [-1, 1] };
export const fleetOutput: TensorSpec = { name: 'y', datatype: 'UINT8', shape: [-1, 1] };
const version = modelVersion('1');
/** The one host of a simulated fleet. */
export const fleetHost = hostId('fleet');

/** One priority level a class, the most urgent first. */
export function fleetConfig({ name, itemsMax }: FleetModel): ModelConfig {
  return {
    name,
    platform: 'onnxruntime_onnx',
    backend: 'onnxruntime',
    maxBatchSize: itemsMax,
    inputs: [{ name: fleetInput.name, datatype: 'UINT8', dims: [1], format: 'NONE', optional: false }],
    outputs: [{ name: fleetOutput.name, datatype: 'UINT8', dims: [1], labelFilename: '' }],
    versionPolicy: { kind: 'latest', count: 1 },
    instanceGroups: [],
    defaultModelFilename: 'model.onnx',
    dynamicBatching: {
      ...defaultDynamicBatching,
      priorityLevels: sloClasses.length,
      defaultPriorityLevel: sloClasses.length,
    },
    warmups: [],
    parameters: new Map(),
    metricTags: new Map(),
  };
}

export function fleetPlacement(fleet: Fleet, index: number): Placement {
  const model = fleet.models[index] as FleetModel;
  return {
    model: modelName(model.name),
    version,
    config: fleetConfig(model),
    artifact: { digest: digestOf(index), path: model.name },
    // What it takes is told when it is loaded; an estimate beforehand would be on top of what the fleet file says.
    weightBytes: 0,
    inputs: [fleetInput],
    outputs: [fleetOutput],
    optimization: 'all',
    warmups: [],
  };
}

/** Everything served by every device that has a table for it. */
export function fleetCatalog(fleet: Fleet): Catalog {
  const models = new Map<ModelName, CatalogEntry>();
  for (const [index, model] of fleet.models.entries()) {
    const name = modelName(model.name);
    const served: ServedModel = {
      name,
      version,
      config: fleetConfig(model),
      inputs: [fleetInput],
      outputs: [fleetOutput],
      optionalInputs: new Set(),
      digest: digestOf(index),
      labels: new Map(),
      devices: fleet.devices.filter(({ service }) => service[index] !== undefined).map(({ id }) => deviceId(id)),
    };
    models.set(name, {
      name,
      versions: [{ version, state: 'READY', reason: '', isQuarantined: false }],
      served: new Map([[version, served]]),
      defaultVersion: version,
      reason: '',
    });
  }
  return { revision: 1, models };
}

const classParameters: readonly InferParameters[] = sloClasses.map(
  (name, index) =>
    new Map([
      ['priority', { kind: 'int64', value: BigInt(index + 1) }],
      ['intarsia_slo_class', { kind: 'string', value: name }],
    ]),
);

/** Decoded requests, made once for each model, class and number of items. */
export class FleetMessages {
  readonly #fleet: Fleet;
  readonly #made = new Map<number, InferRequestMessage>();

  constructor(fleet: Fleet) {
    this.#fleet = fleet;
  }

  of(model: number, sloClass: number, items: number): InferRequestMessage {
    const key = (items * this.#fleet.models.length + model) * sloClasses.length + sloClass;
    let message = this.#made.get(key);
    if (message === undefined) {
      message = {
        modelName: (this.#fleet.models[model] as FleetModel).name,
        modelVersion: '1',
        id: '',
        parameters: classParameters[sloClass] ?? noParameters,
        inputs: [
          {
            name: fleetInput.name,
            datatype: fleetInput.datatype,
            shape: [items, 1],
            parameters: noParameters,
            data: new Uint8Array(items),
          },
        ],
        outputs: [],
        rawContents: true,
      };
      this.#made.set(key, message);
    }
    return message;
  }
}

function digestOf(index: number): ReturnType<typeof artifactDigest> {
  return artifactDigest((index + 1).toString(16).padStart(64, '0'));
}
