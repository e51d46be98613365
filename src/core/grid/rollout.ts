/**
 * How a deployment goes from one version to the next without a moment of fewer ready copies: new copies start beside the
 * old ones, at most `surge` at a time; an old one leaves for each new one that is ready. When no further copy becomes ready
 * within the deployment's time limit, what served before is brought back by itself.
 *
 * The state is a record in the store. Time in it is a duration without progress, so that a new leader counts on from there.
 */
import type { ModelName, ModelVersion } from '../ids.js';
import type { SplitSpec } from '../split/split-spec.js';
import type { Deployment, Edition, RolloutRecord } from './records.js';

/** Copies of the deployment now, in one of its groups (a tier, or all). */
export interface GroupCounts {
  readonly wanted: number;
  /** Of the target: assigned, and of these ready. */
  readonly target: number;
  readonly targetReady: number;
  /** Of the stable edition, as long as it is not the target. */
  readonly stable: number;
}

export interface RolloutInput {
  readonly deployment: Deployment;
  readonly deploymentRevision: number;
  readonly record: RolloutRecord | undefined;
  readonly groups: readonly GroupCounts[];
  /** Milliseconds without progress by this leader's clock, those in the record included. */
  readonly waitedMs: number;
  /** What keeps copies from being ready, in the words of hosts and of the placement; empty when nothing is known. */
  readonly trouble: string;
}

export interface RolloutStep {
  readonly record: RolloutRecord;
  /** Copies to have, by group in the order of the input. What is of neither edition leaves. */
  readonly wants: readonly { readonly target: number; readonly stable: number }[];
  /** What an operator may want to know about it. */
  readonly events: readonly { readonly level: 'info' | 'warn'; readonly text: string }[];
}

export function isSameEdition(left: Edition | undefined, right: Edition | undefined): boolean {
  return (
    left !== undefined &&
    left.model === right?.model &&
    left.version === right.version &&
    left.split?.id === right.split?.id
  );
}

/** The edition of a deployment, or of what hosts say they have. */
export interface EditionName {
  readonly model: ModelName;
  readonly version: ModelVersion;
  readonly split?: SplitSpec | string;
}

export function editionText({ model, version, split }: EditionName): string {
  if (split === undefined) return `${model}/${version}`;
  return `${model}/${version}~${typeof split === 'string' ? split : split.id}`;
}

/** What one device has of an edition: all of it, or a shard. */
export function pieceText(piece: EditionName & { readonly shard?: number }): string {
  return piece.split === undefined ? editionText(piece) : `${editionText(piece)}#${piece.shard ?? 0}`;
}

/** The edition that a deployment wants. */
export function wantedEdition({ model, version, split }: Deployment): Edition {
  return split === undefined ? { model, version } : { model, version, split };
}

/** What a rollout does next. The same input gives the same step. */
export function rolloutStep(input: RolloutInput): RolloutStep {
  const events: { level: 'info' | 'warn'; text: string }[] = [];
  const record = advance(begin(input, events), input, events);
  return { record, wants: wantsOf(record, input), events };
}

type Events = { level: 'info' | 'warn'; text: string }[];

/** The record, begun anew where the operator wants something else than before. */
function begin(input: RolloutInput, events: Events): RolloutRecord {
  const { strategy: _, ...record } = begun(input, events);
  const { strategy } = input.deployment;
  return strategy === undefined ? record : { ...record, strategy };
}

function begun(input: RolloutInput, events: Events): RolloutRecord {
  const { deployment, deploymentRevision, record } = input;
  const target = wantedEdition(deployment);
  if (record !== undefined && isSameEdition(record.target, target)) {
    const isTriedAgain = record.deploymentRevision !== deploymentRevision && record.phase === 'rolled-back';
    // Constraints, standbys and memory of a split may have changed: the newest words count.
    if (!isTriedAgain)
      return {
        ...record,
        deploymentRevision,
        target,
        ...(isSameEdition(record.stable, target) ? { stable: target } : {}),
      };
  }
  const stable = record?.stable;
  const isBack = isSameEdition(stable, target);
  events.push({
    level: 'info',
    text:
      stable === undefined || isBack
        ? `${editionText(target)} is wanted${isBack ? ' again' : ''}`
        : `rolls from ${editionText(stable)} to ${editionText(target)}${whyText(target)}`,
  });
  return {
    format: 1,
    deployment: deployment.name,
    deploymentRevision,
    ...(stable === undefined ? {} : { stable }),
    target,
    phase: 'progressing',
    reason: '',
    readyMost: 0,
    waitedMs: 0,
    nextReplica: record?.nextReplica ?? 0,
  };
}

/** What the grid says of a split that it planned itself. */
function whyText({ split }: Edition): string {
  return split?.why === undefined ? '' : `: ${split.why}`;
}

function advance(record: RolloutRecord, input: RolloutInput, events: Events): RolloutRecord {
  const { deployment, groups, trouble } = input;
  const limitMs = deployment.rollout.progressMsMax;
  const ready = groups.reduce((sum, group) => sum + Math.min(group.wanted, group.targetReady), 0);
  const isAllReady = groups.every((group) => group.targetReady >= group.wanted);
  switch (record.phase) {
    case 'complete':
    case 'rolled-back': {
      const reason = record.phase === 'complete' ? trouble : record.reason;
      return { ...record, reason };
    }
    case 'progressing':
    case 'stalled': {
      if (isAllReady) {
        events.push({ level: 'info', text: `${editionText(record.target)} is ready: ${ready} copies` });
        return {
          ...record,
          phase: 'complete',
          stable: record.target,
          reason: '',
          readyMost: Math.max(record.readyMost, ready),
          waitedMs: 0,
        };
      }
      if (ready > record.readyMost) return { ...record, readyMost: ready, waitedMs: 0, reason: trouble };
      // A record begun just now has waited for nothing, whatever was counted for the one before.
      const waitedMs = record === input.record || isKept(record, input.record) ? input.waitedMs : 0;
      if (record.phase === 'stalled' || waitedMs < limitMs) return { ...record, reason: trouble, waitedMs };
      const why = `${ready} of ${groups.reduce((sum, { wanted }) => sum + wanted, 0)} copies of ${editionText(record.target)} are ready and no further one became so within ${limitMs} ms${trouble === '' ? '' : `: ${trouble}`}`;
      if (record.stable === undefined || isSameEdition(record.stable, record.target)) {
        events.push({ level: 'warn', text: `${why}; there is nothing to go back to` });
        return { ...record, phase: 'stalled', reason: why, waitedMs };
      }
      events.push({ level: 'warn', text: `${why}; goes back to ${editionText(record.stable)}` });
      return { ...record, phase: 'rolled-back', reason: why, waitedMs };
    }
  }
}

function isKept(record: RolloutRecord, before: RolloutRecord | undefined): boolean {
  return before !== undefined && isSameEdition(before.target, record.target) && before.phase === record.phase;
}

function wantsOf(record: RolloutRecord, { groups, deployment }: RolloutInput): RolloutStep['wants'] {
  const { stable, target, phase } = record;
  if (stable === undefined || isSameEdition(stable, target)) {
    return groups.map(({ wanted }) => ({ target: wanted, stable: 0 }));
  }
  if (phase === 'rolled-back') return groups.map(({ wanted }) => ({ target: 0, stable: wanted }));
  // New copies that are not ready count against the surge of the whole deployment.
  let surge = deployment.rollout.surge;
  for (const { target: assigned, targetReady } of groups) surge -= Math.max(0, assigned - targetReady);
  return groups.map((group) => {
    const old = Math.min(group.stable, Math.max(0, group.wanted - group.targetReady));
    let started = Math.min(group.wanted, group.target);
    const more = Math.max(0, Math.min(group.wanted - started, surge));
    surge -= more;
    started += more;
    // Copies that were lost meanwhile are replaced by what has shown that it works.
    const missing = Math.max(0, group.wanted - old - started);
    return record.readyMost > 0
      ? { target: started + missing, stable: old }
      : { target: started, stable: old + missing };
  });
}
