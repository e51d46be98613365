/** ONNX's own words for pipelines in plans: the cuts that a file asks for are the only ones, and a choice is written back. */
import { annotatePlan } from '#core/split/annotations.js';
import type { CutCandidate } from '#core/split/cut-candidates.js';
import type { Cutter } from '#core/split/cut.js';
import type { PlanCandidate } from '#core/split/plan-choice.js';
import type { PlanTables } from '#core/split/plan-tables.js';
import { writeModelFile } from './shard-files.js';

/** @param annotated Where the file rises to another pipeline stage; undefined: it says nothing. */
export function annotatedOnly(
  candidates: readonly CutCandidate[],
  annotated: readonly number[] | undefined,
): readonly CutCandidate[] {
  if (annotated === undefined) return candidates;
  return candidates.map((candidate) =>
    candidate.problem !== '' || annotated.includes(candidate.position)
      ? candidate
      : { ...candidate, problem: 'the nodes beside it are annotated with the same pipeline stage' },
  );
}

export function annotationNotes(annotated: readonly number[] | undefined): readonly string[] {
  if (annotated === undefined) return [];
  const where = annotated.length === 0 ? 'nowhere' : `before nodes ${annotated.join(', ')} only`;
  return [`the file is annotated with pipeline stages: it is cut ${where}`];
}

/**
 * Writes the whole model with the stages of a plan that cuts it, if a path is given.
 * @returns What there is to say of it.
 */
export async function writeAnnotated(
  path: string | undefined,
  {
    choice,
    cutter,
    tables,
  }: { readonly choice: PlanCandidate | undefined; readonly cutter: Cutter; readonly tables: PlanTables },
): Promise<readonly string[]> {
  if (path === undefined) return [];
  if (choice?.strategy !== 'pipeline' || choice.stages.length < 2) return [`${path} is not written: nothing is cut`];
  const cut = cutter.cut(choice.stages.slice(1).map(({ from }) => tables.bounds[from] ?? 0));
  const devices = choice.stages.map(({ device }) => device.id);
  await writeModelFile(path, annotatePlan(cut, { name: 'intarsia', devices }));
  return [`the model with its stages as annotations was written to ${path}; side files belong beside it`];
}
