/** What `intarsia optimize` asks and is told: plain data between the command line and the program. */
import type { ExecutionProvider } from '#core/provider.js';
import type { VariantRecord, VariantRow } from '#core/variants/variant-record.js';
import type { MadeKind } from '#core/variants/variant-tolerance.js';

export interface OptimizeRequest {
  /** Path of the ONNX file. */
  readonly model: string;
  readonly variants: readonly MadeKind[];
  /** Folder that gets a folder for each variant; empty: `variants` beside the model file. */
  readonly out: string;
  /** Folder with `test_data_set_N`; empty: the model's own folders, and made-up inputs where there are none. */
  readonly vectors: string;
  /** Of a fixed shape: for the first dimension of inputs that varies. */
  readonly batch?: number;
  /** Of a fixed shape: whole shapes by input. */
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  /** Devices of this machine that each variant is compared and timed on. */
  readonly devices: readonly ExecutionProvider[];
  /** Operators that stay in single precision in fp16. */
  readonly keep: readonly string[];
  /** Largest error that passes, instead of each kind's own. */
  readonly tolerance?: number;
  /** For made-up inputs. */
  readonly seed: number;
}

export interface VariantOutcome {
  readonly kind: MadeKind;
  readonly state: 'written' | 'refused';
  /** Why it was refused, with the numbers; empty otherwise. */
  readonly reason: string;
  /** Of the written file. */
  readonly path: string;
  readonly bytes: number;
  /** What was compared, refused variants included. */
  readonly rows: readonly VariantRow[];
  readonly notes: readonly string[];
  readonly record?: VariantRecord;
}

export interface OptimizeReport {
  readonly model: string;
  /** Bytes of the model with its side files. */
  readonly bytes: number;
  readonly vectors: readonly string[];
  readonly variants: readonly VariantOutcome[];
}
