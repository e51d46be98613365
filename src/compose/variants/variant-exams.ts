/**
 * What a variant is asked on the device that is to serve it: the test vectors of the exact model or made-up inputs, with what
 * the exact model answers on this host's CPU, without the optimiser, in a process that ends with the last answer.
 *
 * One model at a time. What was asked of the same model for the same sizes is remembered, so that several devices and a
 * device that comes back cost one run of the exact model.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { intarsiaError } from '#core/errors.js';
import { modelFacts } from '#core/onnx/model-facts.js';
import { toleranceOf } from '#core/split/tolerance.js';
import { formatBytes, GiB, MiB } from '#core/units.js';
import type { VariantExam } from '#core/variants/variant-difference.js';
import type { VariantRecord } from '#core/variants/variant-record.js';
import type { Placement } from '#actors/device/protocol.js';
import type { Clock } from '#ports/clock.js';
import type { Executor } from '#ports/executor.js';
import { engineTypes, explainDrawing, runReference } from '../split/reference.js';
import { bringSideFiles } from '../split/shard-files.js';
import { readCutter } from '../split/verify-split.js';
import { questionsOf } from './assess-variant.js';

export interface VariantExamParts {
  readonly startCpu: () => Promise<Executor>;
  readonly clock: Clock;
  /** Bytes of this machine's memory: a model that is asked may have a quarter of it in weights. */
  readonly memoryBytes: number;
}

/** Vectors that a device is asked at most, and their bytes with the answers: they are kept as long as the variant is served. */
const questionsMax = 4;
const questionBytesMax = 16 * MiB;
const weightBytesLimit = 2 * GiB;
/** Models remembered. */
const examsMax = 8;
/** The exact model may take this long altogether, ms. */
const runMsMax = 120_000;
const closeGraceMs = 5_000;
const seed = 1;

type Answers = Pick<VariantExam, 'usual' | 'questions'>;

export class VariantExams {
  readonly #parts: VariantExamParts;
  readonly #known = new Map<string, Promise<Answers>>();
  #last: Promise<unknown> = Promise.resolve();
  #cpu: Executor | undefined;
  #isOver = false;

  constructor(parts: VariantExamParts) {
    this.#parts = parts;
  }

  /**
   * @throws RESOURCE_EXHAUSTED (too large), FAILED_PRECONDITION (it does not answer the same twice), EXECUTION_FAILED,
   * EXECUTOR_LOST (it took too long), DEVICE_UNAVAILABLE, UNAVAILABLE (the host stops).
   */
  async examOf(exact: Placement, { kind, tolerance, shapes }: VariantRecord): Promise<VariantExam> {
    const key = JSON.stringify([exact.artifact.digest, shapes]);
    let answers = this.#known.get(key);
    if (answers === undefined) {
      answers = this.#last.then(() => this.#ask(exact, shapes));
      this.#last = answers.catch(() => undefined);
      for (const oldest of this.#known.keys()) if (this.#known.size >= examsMax) this.#known.delete(oldest);
      this.#known.set(key, answers);
      // What failed may go well another time.
      answers.catch(() => void this.#known.delete(key));
    }
    return { kind, limit: tolerance, ...(await answers) };
  }

  /** Nothing is asked any more, and what is being asked fails: the host stops. */
  async end(): Promise<void> {
    this.#isOver = true;
    await this.#cpu?.close({ graceMs: 0 });
    await this.#last;
  }

  #checkOpen(): void {
    if (this.#isOver) throw intarsiaError('UNAVAILABLE', 'the host stops');
  }

  async #ask({ artifact: { path }, weightBytes }: Placement, shapes: VariantRecord['shapes']): Promise<Answers> {
    const { startCpu, clock, memoryBytes } = this.#parts;
    const weightBytesMax = Math.min(weightBytesLimit, Math.floor(memoryBytes / 4));
    if (weightBytes > weightBytesMax) {
      throw intarsiaError(
        'RESOURCE_EXHAUSTED',
        `the exact model has ${formatBytes(weightBytes)} of weights; on the reference it may have ${formatBytes(weightBytesMax)}`,
        { weightBytes, weightBytesMax },
      );
    }
    this.#checkOpen();
    const cutter = await readCutter(path);
    const { graph } = cutter;
    const folder = await mkdtemp(join(tmpdir(), 'intarsia-exam-'));
    const cpu = await startCpu();
    this.#cpu = cpu;
    // Ends whatever it does: everything that waits for it fails.
    const late = clock.schedule(runMsMax, () => void cpu.close({ graceMs: 0 }));
    try {
      this.#checkOpen();
      const own = dirname(path);
      const folders = [own, dirname(own)];
      const reference = await runReference({ cutter, path, cpu, folders, mustHaveVectors: false, seed });
      if (reference.unstable !== '') {
        throw intarsiaError('FAILED_PRECONDITION', `${reference.unstable}; ${explainDrawing(graph)}`);
      }
      const locations = modelFacts(graph.model).externalTensors.map(({ location }) => location);
      await bringSideFiles(locations, { from: own, to: folder });
      const types = await engineTypes(graph, { cpu, folder, optimization: reference.optimization });
      const { vectors, expected } = await questionsOf({ shapes, reference, source: path, seed }, graph, cpu);
      const asked = vectors.map(({ inputs }, index) => ({ inputs, expected: expected[index] ?? [] }));
      return {
        usual: toleranceOf(graph, types, { isUnoptimized: false, isReferenceEngine: false }),
        questions: bounded(asked),
      };
    } finally {
      late.cancel();
      await cpu.close({ graceMs: closeGraceMs });
      await rm(folder, { recursive: true, force: true });
    }
  }
}

/** The first ones, as far as there is room for them. @throws RESOURCE_EXHAUSTED where there is none for the first. */
function bounded(questions: VariantExam['questions']): VariantExam['questions'] {
  let bytes = 0;
  const kept: VariantExam['questions'][number][] = [];
  for (const question of questions.slice(0, questionsMax)) {
    bytes += [...question.inputs, ...question.expected].reduce((sum, { data }) => sum + data.byteLength, 0);
    if (bytes > questionBytesMax) break;
    kept.push(question);
  }
  if (kept.length === 0) {
    throw intarsiaError(
      'RESOURCE_EXHAUSTED',
      `one vector and its answer have ${formatBytes(bytes)}; ${formatBytes(questionBytesMax)} are kept`,
      { bytes, bytesMax: questionBytesMax },
    );
  }
  return kept;
}
