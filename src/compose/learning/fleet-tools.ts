/** What a simulated world needs beside plain data: a solver for bounds, and a loader of policies that people write themselves. */
import { pathToFileURL } from 'node:url';
import { intarsiaError, messageOf } from '#core/errors.js';
import type { DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import type { FleetTools } from '#policies/learning/fleet-environment.js';
import type { LinearSolver } from '#ports/linear-solver.js';

export function fleetTools(): FleetTools {
  let solver: Promise<LinearSolver> | undefined;
  return {
    loadPolicy: loadOwnPolicy,
    solver: () =>
      (solver ??= import('#adapters/highs/highs-solver.js').then(({ loadHighsSolver }) => loadHighsSolver())),
  };
}

/** Whether the name is that of somebody's own policy: a module of JavaScript. */
export function isOwnPolicy(name: string): boolean {
  return /\.m?js$/u.test(name);
}

/**
 * Runs a module of somebody's own and takes its default export: a function without arguments that makes a `DispatchPolicy`,
 * a new one for each run. For simulations only: hosts never load code that way.
 * @throws INVALID_ARGUMENT naming the file when it cannot be loaded or makes no policy.
 */
export async function loadOwnPolicy(path: string): Promise<() => DispatchPolicy> {
  let loaded: { readonly default?: unknown };
  try {
    loaded = (await import(pathToFileURL(path).href)) as typeof loaded;
  } catch (error) {
    throw intarsiaError('INVALID_ARGUMENT', `policy ${path} cannot be loaded: ${messageOf(error)}`, { path }, error);
  }
  const make = loaded.default;
  if (typeof make !== 'function') {
    throw intarsiaError('INVALID_ARGUMENT', `policy ${path} has no function as its default export`, { path });
  }
  return () => {
    const policy: unknown = (make as () => unknown)();
    const { name, choose } = (typeof policy === 'object' && policy !== null ? policy : {}) as Partial<DispatchPolicy>;
    if (typeof name !== 'string' || name === '' || typeof choose !== 'function') {
      throw intarsiaError('INVALID_ARGUMENT', `what ${path} makes has no name and choose, as a dispatch policy has`, {
        path,
      });
    }
    return policy as DispatchPolicy;
  };
}
