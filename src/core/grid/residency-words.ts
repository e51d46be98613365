/** Deployments whose copies the leader counts and places: what becomes of its words when an operator applies the file again. */
import type { Deployment } from './records.js';

/**
 * As it is to be written: what the leader decided stays, within the bounds as they are now. With other constraints, or when it
 * is new, it begins as the file says.
 */
export function withResidencyKept<Wanted extends Deployment>(wanted: Wanted, before: Deployment | undefined): Wanted {
  const { residency } = wanted;
  if (residency === undefined || before?.residency === undefined) return wanted;
  if (JSON.stringify(residency.constraints) !== JSON.stringify(before.residency.constraints)) return wanted;
  const replicas = Math.min(residency.max, Math.max(residency.min, before.replicas ?? 0));
  return { ...wanted, replicas, constraints: before.constraints };
}
