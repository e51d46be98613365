/** Reads parts of a training plan from plain data: what is not named keeps its value; what is unknown or no number is refused. */
import { intarsiaError } from '#core/errors.js';
import type { TrainingPlan } from './training-plan.js';

type Tree = { readonly [key: string]: unknown };

/**
 *     seed: 7
 *     hidden: [32, 32]
 *     search: { iterations: 20 }
 *
 * @throws CONFIG_INVALID naming the file and the field.
 */
export function readPlan(base: TrainingPlan, data: unknown, fileName: string): TrainingPlan {
  const plan = readNumbers(base, data, fileName);
  if (plan.planShare > 0 && plan.planShare <= 1) return plan;
  throw wrong(fileName, 'planShare', 'above 0 and at most 1', plan.planShare);
}

/** The same for any object of numbers. @throws CONFIG_INVALID naming the file and the field. */
export function readNumbers<Plan extends object>(base: Plan, data: unknown, fileName: string): Plan {
  if (data === null || data === undefined) return base;
  return merge(base as unknown as Tree, data, fileName, '') as unknown as Plan;
}

function merge(base: Tree, data: unknown, fileName: string, path: string): Tree {
  if (typeof data !== 'object' || data === null || Array.isArray(data)) {
    throw wrong(fileName, path === '' ? 'the plan' : path, 'fields with values', data);
  }
  const merged: Record<string, unknown> = { ...base };
  for (const [name, value] of Object.entries(data as Tree)) {
    const at = path === '' ? name : `${path}.${name}`;
    const before = Object.hasOwn(base, name) ? base[name] : undefined;
    if (before === undefined) {
      throw wrong(fileName, at, `one of ${Object.keys(base).join(', ')}`, name);
    }
    merged[name] = valueOf(before, value, fileName, at);
  }
  return merged;
}

function valueOf(before: unknown, value: unknown, fileName: string, at: string): unknown {
  if (Array.isArray(before)) {
    const kind = typeof before[0];
    if (!Array.isArray(value) || value.length === 0 || !value.every((item) => typeof item === kind)) {
      throw wrong(fileName, at, `a list of ${kind === 'number' ? 'numbers' : 'texts'}`, value);
    }
    return value;
  }
  if (typeof before === 'object') return merge(before as Tree, value, fileName, at);
  if (typeof value !== 'number' || !(value >= 0 && value <= 1e9)) {
    throw wrong(fileName, at, 'a number of 0 to 1e9', value);
  }
  return value;
}

function wrong(fileName: string, at: string, wanted: string, value: unknown): Error {
  const shown = (JSON.stringify(value) as string | undefined)?.slice(0, 80) ?? 'nothing';
  return intarsiaError('CONFIG_INVALID', `${fileName}: ${at} must be ${wanted}; it is ${shown}`, {
    file: fileName,
    at,
  });
}
