/**
 * What applying deployments would change: field by field, as `deploy --dry-run` prints it.
 */
import type { Deployment } from './records.js';

export interface FieldChange {
  /** Path of the field, such as `rollout.surge`. */
  readonly path: string;
  /** As JSON; undefined when it is not there. */
  readonly before: string | undefined;
  readonly after: string | undefined;
}

export interface DeploymentDifference {
  readonly name: string;
  readonly kind: 'new' | 'changed' | 'same' | 'removed';
  /** In the order of the fields' paths. */
  readonly changes: readonly FieldChange[];
}

/**
 * The wanted deployments against those in the store, by name.
 * @param removesOthers Whether what is in the store and not wanted goes away; otherwise it is left out.
 */
export function deploymentDifferences(
  before: ReadonlyMap<string, Deployment>,
  wanted: readonly Deployment[],
  removesOthers = false,
): readonly DeploymentDifference[] {
  const names = new Set(wanted.map(({ name }) => name));
  const differences = wanted.map((deployment) => difference(deployment.name, before.get(deployment.name), deployment));
  if (removesOthers) {
    for (const [name, deployment] of before) {
      if (!names.has(name)) differences.push(difference(name, deployment, undefined));
    }
  }
  return differences.sort((a, b) => (a.name < b.name ? -1 : Number(a.name > b.name)));
}

/** One line a field: `~ version: "1" -> "2"`, under a line a deployment. */
export function differenceText(differences: readonly DeploymentDifference[]): string {
  const signs = { new: '+', changed: '~', same: '=', removed: '-' } as const;
  return differences
    .flatMap(({ name, kind, changes }) => [
      `${signs[kind]} deployment ${name}${kind === 'same' ? ' (no change)' : ''}`,
      ...changes.map((change) => `    ${fieldText(change)}`),
    ])
    .join('\n');
}

function fieldText({ path, before, after }: FieldChange): string {
  if (before === undefined) return `+ ${path}: ${after ?? ''}`;
  if (after === undefined) return `- ${path}: ${before}`;
  return `~ ${path}: ${before} -> ${after}`;
}

function difference(name: string, before: Deployment | undefined, after: Deployment | undefined): DeploymentDifference {
  const old = leaves(before);
  const now = leaves(after);
  const changes: FieldChange[] = [];
  for (const path of [...new Set([...old.keys(), ...now.keys()])].sort()) {
    if (old.get(path) === now.get(path)) continue;
    changes.push({ path, before: old.get(path), after: now.get(path) });
  }
  if (before === undefined) return { name, kind: 'new', changes };
  if (after === undefined) return { name, kind: 'removed', changes };
  return { name, kind: changes.length === 0 ? 'same' : 'changed', changes };
}

/** Every value that is not an object, as JSON by its path; lists are one value. */
function leaves(deployment: Deployment | undefined): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  const visit = (value: unknown, path: string): void => {
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      for (const [field, inner] of Object.entries(value)) visit(inner, path === '' ? field : `${path}.${field}`);
    } else if (value !== undefined && path !== 'format' && path !== 'name') {
      found.set(path, JSON.stringify(value));
    }
  };
  visit(deployment, '');
  return found;
}
