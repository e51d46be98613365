/**
 * Promotes policies and takes them back, for operators: stores versions, holds every step against its gates, and writes the
 * pointer by compare-and-swap. Gateways follow the pointer by themselves; see actors/policy-follower.
 */
import { intarsiaError } from '#core/errors.js';
import type { GridKeys } from '#core/grid/keys.js';
import type { HostId } from '#core/ids.js';
import { checkArtifact } from '#core/scheduling/artifact-check.js';
import { readCalibration, readEvaluation } from '#core/scheduling/evaluation-summary.js';
import {
  artifactBytesMax,
  joinSightings,
  readPointer,
  readSighting,
  readVersion,
  versionsMax,
  type PolicyVersion,
} from '#core/scheduling/policy-records.js';
import {
  isVersion,
  loadedVersions,
  nextPointer,
  noPointer,
  ownPolicy,
  pointerText,
  stepAfter,
  versionId,
  type PolicyPointer,
  type PromotionStep,
} from '#core/scheduling/promotion.js';
import { defaultGateLimits, gatesBefore, type GateFinding } from '#core/scheduling/promotion-gates.js';
import type { Clock } from '#ports/clock.js';
import type { PolicyAdmin, PolicyBook, PolicyCall, PolicyOrder, PolicyOutcome } from '#ports/policy-admin.js';
import type { Store, StoreCallOptions, StoreOperation } from '#ports/store.js';
import { writeWithEvent } from '#runtime/policy-writes.js';

/** What files of policies are checked with. */
export interface PolicyTools {
  readonly sha256: (bytes: Uint8Array) => string;
  readonly base64: (bytes: Uint8Array) => string;
  /** @throws CONFIG_INVALID for a rule that there is none of. */
  readonly checkRule: (name: string) => void;
  /** @throws CONFIG_INVALID for a rule of batching that there is none of. */
  readonly checkBatchingRule: (name: string) => void;
}

export interface PolicyDeskOptions {
  readonly store: Store;
  readonly keys: GridKeys;
  readonly clock: Clock;
  readonly host: HostId;
  readonly tools: PolicyTools;
}

const noFile = new Uint8Array();
const callMsMax = 10_000;
const reportBytesMax = 4 * 1024 * 1024;
const notesMax = 16;
const noteLengthMax = 500;
const reasonLengthMax = 255;

export class PolicyDesk implements PolicyAdmin {
  readonly #options: PolicyDeskOptions;

  constructor(options: PolicyDeskOptions) {
    this.#options = options;
  }

  async policies(call: PolicyCall): Promise<PolicyBook> {
    const { store, keys } = this.#options;
    const until = this.#until(call);
    const [current, versions, seen] = await Promise.all([
      store.get(keys.policyPointer, until),
      store.range(keys.policyVersions, until),
      store.range(keys.policySightings, until),
    ]);
    const pointer = current.entry === undefined ? noPointer : readPointer(current.entry.value);
    return {
      pointer,
      revision: current.entry?.modRevision ?? 0,
      versions: versions.entries
        .map(({ value }) => readVersion(value))
        .sort((left, right) => right.wallMs - left.wallMs || (left.id < right.id ? -1 : 1)),
      sightings: seen.entries
        .flatMap(({ value }) => readSighting(value) ?? [])
        .filter(({ policy }) => policy === pointer.policy),
    };
  }

  async orderPolicy(order: PolicyOrder, call: PolicyCall): Promise<PolicyOutcome> {
    const until = this.#until(call);
    if (order.force && order.reason.trim() === '') {
      throw intarsiaError('INVALID_ARGUMENT', 'gates are passed over with a reason only: it is written down', {});
    }
    const before = await this.policies(call);
    if (order.expectedRevision >= 0 && order.expectedRevision !== before.revision) throw changed(before.pointer);
    const { version, gates: found = [] } = this.#versionOf(order, before);
    const policy = version?.id ?? this.#reference(order, before);
    const step = stepOf(order, before.pointer, policy);
    const gates = [...found, ...this.#gates(order, step, before, version)];
    const isRefused = !order.force && gates.some(({ passed }) => !passed);
    const { trialLate, isNewTrial } = trialOf(before, step);
    const pointer = nextPointer(before.pointer, step, {
      gates,
      forced: order.force && gates.some(({ passed }) => !passed) ? order.reason.slice(0, reasonLengthMax) : '',
      reason: order.reason.slice(0, reasonLengthMax),
      host: this.#options.host,
      wallMs: this.#options.clock.wallMs(),
      baseLate: trialLate,
    });
    const text = pointerText(pointer);
    if (isRefused || order.dryRun) return { applied: false, gates, text, book: before };
    // The version first: whoever follows the pointer finds it there.
    if (version !== undefined) await this.#store(version, order, before, pointer, until);
    const { store, keys } = this.#options;
    const isWritten = await writeWithEvent({
      ...{ store, keys, pointer, deadlineMs: until.deadlineMs },
      revision: before.revision === 0 ? undefined : before.revision,
      operations: isNewTrial ? [{ type: 'delete-prefix', prefix: keys.policySightings }] : [],
      event: eventOf(pointer, step),
    });
    const book = await this.policies(call);
    if (!isWritten) throw changed(book.pointer);
    return { applied: true, gates, text, book };
  }

  /** The version that an order brings or adds reports to, and what the gates of its files say. */
  #versionOf(
    { artifact, batching = noFile, evaluationJson, calibrationJson, policy, step }: PolicyOrder,
    book: PolicyBook,
  ): { readonly version?: PolicyVersion; readonly gates?: readonly GateFinding[] } {
    for (const [what, { length }] of Object.entries({ evaluation: evaluationJson, calibration: calibrationJson })) {
      if (length <= reportBytesMax) continue;
      throw intarsiaError(
        'REQUEST_TOO_LARGE',
        `the ${what} has ${length} characters; ${reportBytesMax} is the most`,
        {},
      );
    }
    const hasReports = evaluationJson !== '' || calibrationJson !== '';
    if (artifact.byteLength === 0) {
      if (batching.byteLength > 0) {
        throw intarsiaError(
          'INVALID_ARGUMENT',
          'a batching policy is promoted with the file of its dispatch policy',
          {},
        );
      }
      if (!hasReports || step === 'rollback') return {};
      const id = this.#reference({ policy }, book);
      const known = book.versions.find((each) => each.id === id);
      if (known === undefined)
        throw intarsiaError('INVALID_ARGUMENT', `${id} is a rule: reports are about versions`, {});
      return { version: { ...known, ...reportsOf(known.sha256, evaluationJson, calibrationJson) } };
    }
    for (const { byteLength: bytes } of [artifact, batching]) {
      if (bytes <= artifactBytesMax) continue;
      throw intarsiaError(
        'REQUEST_TOO_LARGE',
        `the policy's file has ${bytes} bytes; ${artifactBytesMax} is the most`,
        { bytes },
      );
    }
    const { tools, host, clock } = this.#options;
    const { policy: read, gate } = checkArtifact(artifact);
    tools.checkRule(read.fallback);
    const sha256 = tools.sha256(artifact);
    const second = batching.byteLength === 0 ? undefined : checkArtifact(batching, 'batching');
    if (second !== undefined) tools.checkBatchingRule(second.policy.fallback);
    const file = second === undefined ? undefined : { sha256: tools.sha256(batching), bytes: batching.byteLength };
    // The same first file with another second one is another version.
    const both = file === undefined ? sha256 : tools.sha256(new TextEncoder().encode(`${sha256} ${file.sha256}`));
    const id = versionId(read.name, both);
    const known = book.versions.find((each) => each.id === id);
    const notes = Object.entries(read.notes)
      .slice(0, notesMax)
      .map(([name, value]) => [name, value.slice(0, noteLengthMax)] as const);
    const made: PolicyVersion = {
      ...{ format: 1, id, name: read.name, sha256, bytes: artifact.byteLength, fallback: read.fallback },
      ...{ notes: Object.fromEntries(notes), host, wallMs: clock.wallMs() },
      ...(file === undefined ? {} : { batching: file }),
    };
    return {
      version: { ...(known ?? made), ...reportsOf(sha256, evaluationJson, calibrationJson) },
      gates: [gate, ...(second === undefined ? [] : [second.gate])],
    };
  }

  /** The reference that an order means. */
  #reference({ policy }: Pick<PolicyOrder, 'policy'>, { pointer, versions }: PolicyBook): string {
    if (policy === '') return pointer.policy;
    if (policy === ownPolicy) return policy;
    // Newest first: a name alone is the newest of that name.
    const version = versions.find(({ id, name }) => id === policy || name === policy);
    if (version !== undefined) return version.id;
    if (isVersion(policy)) {
      throw intarsiaError('NOT_FOUND', `there is no version ${policy.slice(0, 200)}: see intarsia policy list`, {});
    }
    this.#options.tools.checkRule(policy);
    return policy;
  }

  #gates(
    order: PolicyOrder,
    step: PromotionStep,
    book: PolicyBook,
    brought: PolicyVersion | undefined,
  ): readonly GateFinding[] {
    if (step.kind === 'shadow' || step.kind === 'rollback' || !isVersion(step.policy)) return [];
    const version = brought ?? book.versions.find(({ id }) => id === step.policy);
    const { decisionsMin, answersMin, shareMinutesMin } = order;
    const { pointer } = book;
    const isRaised = step.kind === 'all' || step.percent > pointer.percent;
    const hasShare = pointer.mode === 'share' && pointer.policy === step.policy;
    const own = book.sightings.filter(({ policy }) => policy === step.policy);
    return gatesBefore(step.kind, {
      evaluation: version?.evaluation,
      calibration: version?.calibration,
      trial: joinSightings(own),
      shareMs: hasShare && isRaised ? this.#options.clock.wallMs() - pointer.wallMs : undefined,
      limits: {
        decisionsMin: decisionsMin > 0 ? decisionsMin : defaultGateLimits.decisionsMin,
        answersMin: answersMin > 0 ? answersMin : defaultGateLimits.answersMin,
        shareMinutesMin: shareMinutesMin > 0 ? shareMinutesMin : defaultGateLimits.shareMinutesMin,
      },
    });
  }

  async #store(
    version: PolicyVersion,
    { artifact, batching = noFile }: PolicyOrder,
    { versions, pointer: before }: PolicyBook,
    pointer: PolicyPointer,
    until: StoreCallOptions,
  ): Promise<void> {
    const { store, keys, tools } = this.#options;
    const operations: StoreOperation[] = [
      { type: 'put', key: keys.policyVersion(version.id), value: JSON.stringify(version) },
    ];
    if (artifact.byteLength > 0) {
      operations.push({ type: 'put', key: keys.policyArtifact(version.id), value: tools.base64(artifact) });
    }
    if (batching.byteLength > 0) {
      operations.push({ type: 'put', key: keys.policyBatching(version.id), value: tools.base64(batching) });
    }
    const others = versions.filter(({ id }) => id !== version.id);
    if (others.length >= versionsMax) {
      const needed = new Set([...loadedVersions(before), ...loadedVersions(pointer)]);
      const oldest = others.findLast(({ id }) => !needed.has(id));
      if (oldest !== undefined) {
        operations.push(
          { type: 'delete', key: keys.policyVersion(oldest.id) },
          { type: 'delete', key: keys.policyArtifact(oldest.id) },
          { type: 'delete', key: keys.policyBatching(oldest.id) },
        );
      }
    }
    await store.transact({ conditions: [], operations }, until);
  }

  #until({ deadlineMs }: PolicyCall): StoreCallOptions {
    return { deadlineMs: Math.min(deadlineMs, this.#options.clock.nowMs() + callMsMax) };
  }
}

function reportsOf(
  sha256: string,
  evaluationJson: string,
  calibrationJson: string,
): Pick<PolicyVersion, 'evaluation' | 'calibration'> {
  return {
    ...(evaluationJson === '' ? {} : { evaluation: readEvaluation(evaluationJson, sha256) }),
    ...(calibrationJson === '' ? {} : { calibration: readCalibration(calibrationJson) }),
  };
}

function stepOf(order: PolicyOrder, pointer: PolicyPointer, policy: string): PromotionStep {
  const slices = {
    ...(order.sliceSeconds > 0 ? { sliceSeconds: order.sliceSeconds } : {}),
    ...(order.seed > 0 ? { seed: order.seed } : {}),
  };
  switch (order.step) {
    case 'next': {
      const step = stepAfter(pointer, policy);
      return step.kind === 'share' ? { ...step, ...slices } : step;
    }
    case 'share':
      return { kind: 'share', policy, percent: order.percent, ...slices };
    case 'shadow':
    case 'all':
      return { kind: order.step, policy };
    case 'rollback':
      return { kind: 'rollback' };
  }
}

/** What is known of the base's lateness, and whether the step puts another policy on trial. */
function trialOf(
  { pointer, sightings }: PolicyBook,
  step: PromotionStep,
): { readonly trialLate: number; readonly isNewTrial: boolean } {
  if (step.kind === 'rollback') return { trialLate: -1, isNewTrial: false };
  if (step.policy !== pointer.policy) return { trialLate: -1, isNewTrial: true };
  const { baseAnswers, baseLate } = joinSightings(sightings);
  return { trialLate: baseAnswers === 0 ? pointer.baseLate : baseLate / baseAnswers, isNewTrial: false };
}

function eventOf(
  pointer: PolicyPointer,
  step: PromotionStep,
): { readonly level: 'info' | 'warn'; readonly subject: string; readonly text: string; readonly wallMs: number } {
  const { forced, reason, gates, host, wallMs } = pointer;
  const passedOver = gates.filter(({ passed }) => !passed).map(({ gate }) => gate);
  const words = [
    step.kind === 'rollback' ? `taken back through host ${host}` : `promoted through host ${host}`,
    pointerText(pointer),
    ...(forced === '' ? [] : [`passed over ${passedOver.join(', ')}`]),
    ...(reason === '' ? [] : [`reason: ${reason}`]),
  ];
  const level = forced !== '' || step.kind === 'rollback' ? 'warn' : 'info';
  return { level, subject: 'policies', text: words.join('; '), wallMs };
}

/** Somebody else was first. */
function changed(pointer: PolicyPointer): Error {
  const when = pointer.wallMs === 0 ? '' : ` at ${new Date(pointer.wallMs).toISOString()} through host ${pointer.host}`;
  const why = pointer.reason === '' ? '' : ` (${pointer.reason})`;
  return intarsiaError(
    'FAILED_PRECONDITION',
    `somebody else changed the policies${when}: ${pointerText(pointer)}${why}; look at intarsia policy show and decide anew`,
    { number: pointer.number },
  );
}
