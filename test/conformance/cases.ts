/**
 * What must come out of a model: cases, how to run one through any road to the model, and how to judge the answer.
 *
 * The same cases run directly in ONNX Runtime (direct.test.ts), which proves that they are read rightly, and through the
 * protocols of a served host, which proves the host.
 */
import { formatShape, type Tensor } from '#core/tensor.js';
import { tensorElements } from './tensor-values.js';

/** An answer is close enough when |actual - expected| <= absolute + relative × |expected|. Whole numbers and texts: equal. */
export interface Tolerance {
  readonly absolute: number;
  readonly relative: number;
}

interface CaseOfModel {
  /** Unique among all cases. */
  readonly name: string;
  /** Name of the model in a repository made by `prepareRepository`; cases may share a model. */
  readonly model: string;
  /** The ONNX file. */
  readonly modelPath: string;
  readonly tolerance: Tolerance;
  /** Takes more than a second or some hundred megabytes. */
  readonly heavy: boolean;
}

/** One request with a known answer. */
export interface VectorCase extends CaseOfModel {
  readonly kind: 'vector';
  readonly inputs: readonly Tensor[];
  readonly expected: readonly Tensor[];
}

/** Requests that feed on each other: what `next` returns is asked, its answer is judged and given to the next call. */
export interface StreamCase extends CaseOfModel {
  readonly kind: 'stream';
  readonly steps: number;
  /** The inputs of a step, from the answers of the step before; the first gets none. */
  readonly inputs: (step: number, before: ReadonlyMap<string, Tensor>) => readonly Tensor[];
  /** What the step must answer to these inputs; outputs that are not named are not judged. */
  readonly expected: (step: number, inputs: readonly Tensor[]) => readonly Tensor[] | Promise<readonly Tensor[]>;
}

/** Text that a language model must continue greedily, token by token. */
export interface GenerationCase extends CaseOfModel {
  readonly kind: 'generation';
  readonly tokens: readonly number[];
  readonly promptTokens: number;
  /** The tokens' text, or a beginning or continuation of it. */
  readonly text: string;
  readonly decode: (tokens: readonly number[]) => string;
  /** The request that asks for the token after `tokens`; `before` is the answer to the request before. */
  readonly inputs: (tokens: readonly number[], before: ReadonlyMap<string, Tensor>) => readonly Tensor[];
  /** Name of the output whose last row holds a score for each token. */
  readonly logits: string;
}

/** A case that cannot run, and why. */
export interface ImpossibleCase {
  readonly kind: 'impossible';
  readonly name: string;
  readonly modelPath: string;
  readonly reason: string;
}

export type ConformanceCase = VectorCase | StreamCase | GenerationCase;

/** A road to a model: a request goes in, its outputs come back. Rejects with whatever went wrong. */
export type Infer = (model: string, inputs: readonly Tensor[]) => Promise<readonly Tensor[]>;

export interface Verdict {
  readonly pass: boolean;
  /** Largest difference, and the largest relative to the expected value where that is not tiny. */
  readonly absoluteMax: number;
  readonly relativeMax: number;
  /** What is wrong, first thing first; empty when it passes. */
  readonly problem: string;
}

const passed: Verdict = { pass: true, absoluteMax: 0, relativeMax: 0, problem: '' };

/** Runs a case through a road. Answers with a verdict; rejects only when a request fails. */
export async function runCase(testCase: ConformanceCase, infer: Infer): Promise<Verdict> {
  switch (testCase.kind) {
    case 'vector':
      return compareOutputs(testCase, await infer(testCase.model, testCase.inputs));
    case 'stream':
      return runStream(testCase, infer);
    case 'generation':
      return runGeneration(testCase, infer);
  }
}

async function runStream(testCase: StreamCase, infer: Infer): Promise<Verdict> {
  let before: ReadonlyMap<string, Tensor> = new Map();
  let verdict = passed;
  for (let step = 0; step < testCase.steps; step += 1) {
    const inputs = testCase.inputs(step, before);
    const outputs = await infer(testCase.model, inputs);
    const judged = compareTensors(outputs, await testCase.expected(step, inputs), testCase.tolerance);
    verdict = worse(verdict, judged.pass ? judged : { ...judged, problem: `step ${step}: ${judged.problem}` });
    if (!verdict.pass) return verdict;
    before = byName(outputs);
  }
  return verdict;
}

async function runGeneration(testCase: GenerationCase, infer: Infer): Promise<Verdict> {
  const tokens = testCase.tokens.slice(0, testCase.promptTokens);
  let before: ReadonlyMap<string, Tensor> = new Map();
  while (tokens.length < testCase.tokens.length) {
    before = byName(await infer(testCase.model, testCase.inputs(tokens, before)));
    const logits = before.get(testCase.logits);
    if (logits === undefined) return failed(`the answer has no '${testCase.logits}'`);
    const vocabulary = logits.shape.at(-1) ?? 0;
    const row = tensorElements(logits).values.slice(-vocabulary) as number[];
    const token = row.indexOf(Math.max(...row));
    const wanted = testCase.tokens[tokens.length];
    if (token !== wanted) return failed(`token ${tokens.length} is ${token}, expected ${wanted ?? 'none'}`);
    tokens.push(token);
  }
  const text = testCase.decode(tokens);
  const wanted = testCase.text;
  return text !== '' && (wanted.startsWith(text) || text.startsWith(wanted))
    ? passed
    : failed(`the text is '${text}', expected '${wanted}'`);
}

/** Judges the answer to a vector case. */
export function compareOutputs(testCase: VectorCase, outputs: readonly Tensor[]): Verdict {
  return compareTensors(outputs, testCase.expected, testCase.tolerance);
}

/** Judges outputs by name; the order does not matter and further outputs are allowed. */
export function compareTensors(actual: readonly Tensor[], expected: readonly Tensor[], tolerance: Tolerance): Verdict {
  if (expected.length === 0) return failed('nothing is expected, so nothing can be judged');
  const outputs = byName(actual);
  return expected.reduce(
    (verdict, wanted) => worse(verdict, compareTensor(outputs.get(wanted.name), wanted, tolerance)),
    passed,
  );
}

function compareTensor(actual: Tensor | undefined, expected: Tensor, tolerance: Tolerance): Verdict {
  const { name } = expected;
  if (actual === undefined) return failed(`output '${name}' is missing`);
  if (actual.datatype !== expected.datatype)
    return failed(`'${name}' is ${actual.datatype}, expected ${expected.datatype}`);
  if (formatShape(actual.shape) !== formatShape(expected.shape)) {
    return failed(`'${name}' has shape ${formatShape(actual.shape)}, expected ${formatShape(expected.shape)}`);
  }
  const [got, wanted] = [tensorElements(actual), tensorElements(expected)];
  if (got.values.length !== wanted.values.length) {
    return failed(`'${name}' has ${got.values.length} elements, expected ${wanted.values.length}`);
  }
  let absoluteMax = 0;
  let relativeMax = 0;
  let problem = '';
  for (const [index, want] of wanted.values.entries()) {
    const value = got.values[index];
    if (Object.is(value, want) || (typeof want === 'number' && Number.isNaN(want) && Number.isNaN(value))) continue;
    // Infinity and NaN were equal above or are wrong; no tolerance may grow with them.
    const isFinite = typeof want === 'number' && Number.isFinite(want);
    const difference = isFinite ? Math.abs((value as number) - want) : Infinity;
    const size = isFinite ? Math.abs(want) : 0;
    absoluteMax = Math.max(absoluteMax, difference);
    if (size > 1e-3) relativeMax = Math.max(relativeMax, difference / size);
    if (problem === '' && !(difference <= tolerance.absolute + tolerance.relative * size)) {
      problem = `'${name}'[${index}] is ${String(value)}, expected ${String(want)}`;
    }
  }
  return { pass: problem === '', absoluteMax, relativeMax, problem };
}

function worse(left: Verdict, right: Verdict): Verdict {
  return {
    pass: left.pass && right.pass,
    absoluteMax: Math.max(left.absoluteMax, right.absoluteMax),
    relativeMax: Math.max(left.relativeMax, right.relativeMax),
    problem: left.problem === '' ? right.problem : left.problem,
  };
}

function failed(problem: string): Verdict {
  return { pass: false, absoluteMax: Infinity, relativeMax: Infinity, problem };
}

function byName(tensors: readonly Tensor[]): ReadonlyMap<string, Tensor> {
  return new Map(tensors.map((tensor) => [tensor.name, tensor]));
}
