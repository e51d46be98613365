/** What a model registry is given. */
import type { Catalog } from '#core/catalog.js';
import type { DeviceDescriptor } from '#core/device.js';
import type { ModelFiles } from '#ports/model-files.js';
import type { VariantExam } from '#core/variants/variant-difference.js';
import type { VariantRecord } from '#core/variants/variant-record.js';
import type { DeviceMessage, Placement } from '#actors/device/protocol.js';
import type { ResidencyDevice, ResidencyPlan, ResidencyRequest } from '#policies/residency/residency-first-fit.js';
import type { ActorRef } from '#runtime/actor.js';

/** A device that models may be loaded on. */
export interface RegistryDevice {
  readonly descriptor: DeviceDescriptor;
  readonly ref: ActorRef<DeviceMessage>;
}

export interface ModelRegistryOptions {
  readonly files: ModelFiles;
  /**
   * `none` loads everything at the first scan and looks never again; `poll` looks every `pollMs` and follows the
   * repository; `explicit` loads `startupModels` at the first scan and then what it is told.
   */
  readonly mode: 'none' | 'poll' | 'explicit';
  /** Milliseconds between the end of a look and the next, in mode `poll`. */
  readonly pollMs: number;
  /** Models loaded at the first scan in mode `explicit`; `*` for all. */
  readonly startupModels: readonly string[];
  /** In order of preference. */
  readonly devices: readonly RegistryDevice[];
  /** Which devices a model goes on. */
  readonly residency: (request: ResidencyRequest, devices: readonly ResidencyDevice[]) => ResidencyPlan;
  /** Called with every new catalogue, before anything that is no longer in it is unloaded. */
  readonly publish: (catalog: Catalog) => void;
  /** Engine of the CPU's executors here, such as `onnxruntime-node 1.30.0`: some variants are for one engine only. */
  readonly engine?: string;
  /**
   * What a variant is to be asked on the device that loads it, by the exact model's own answers. Rejects where the exact
   * model cannot be asked: then the variant's record counts alone. Absent: it always does.
   */
  readonly examOf?: (exact: Placement, record: VariantRecord) => Promise<VariantExam>;
  /**
   * Milliseconds a device may take to load or unload a version, default 600,000. Beyond: the load counts as failed.
   */
  readonly loadMsMax?: number;
  /**
   * Models read and hashed at once, default 2. Higher: a large repository is up sooner, more of its files are in memory
   * at once (a model file of up to 2 GiB each).
   */
  readonly preparationsMax?: number;
  /** Requests that may wait for one model while another is carried out, default 64. At the bound: RESOURCE_EXHAUSTED. */
  readonly waitingMax?: number;
  /**
   * Milliseconds the files of a replaced artefact are kept after the switch, default 60,000: what waits for its old session
   * may have to load it once more.
   */
  readonly keepReplacedMs?: number;
}
