/**
 * `intarsia explain`: what was known when a request was dispatched, what was chosen and what came of it, all from the log; and
 * what would have been chosen had a device been free, by asking the same policy again with that device's queue emptied.
 */
import { readLogTable, type DamagedFile, type LogRows } from '#adapters/parquet/read-decision-log.js';
import type { ExplainedDecision, ExplainedOutcome, ExplainReport, ExplainRequest } from '#cli/decision-log-report.js';
import { figureCount, readFigures } from '#core/decision-log/figures.js';
import { intarsiaError } from '#core/errors.js';
import { RandomStream } from '#core/random.js';
import {
  expectedMs,
  marginalUsd,
  newDispatchCandidate,
  SHED,
  type DispatchCandidate,
  type DispatchPolicy,
  type DispatchRequest,
  type FleetView,
} from '#core/scheduling/dispatch-view.js';
import { isSloClass } from '#core/scheduling/slo-class.js';
import { dispatchByName } from '#policies/placement/dispatch-by-name.js';
import { dispatchOf } from '#policies/placement/dispatch-from-file.js';
import { readPolicyFile } from '../learning/contenders.js';

/** @throws NOT_FOUND (no log, no such request, no policy file), INVALID_ARGUMENT (the request's name, another policy's file), MODEL_INVALID. */
export async function explainRequest(request: ExplainRequest): Promise<ExplainReport> {
  const decisions = await readLogTable(request.folder, 'decisions');
  const { run, number } = wantedRequest(request.request, decisions);
  const rows = rowsWhere(
    decisions,
    (row) => text(decisions, 'run', row) === run && value(decisions, 'request', row) === number,
  );
  const outcomes = await readLogTable(request.folder, 'outcomes');
  const [ended] = rowsWhere(
    outcomes,
    (row) => text(outcomes, 'run', row) === run && value(outcomes, 'request', row) === number,
  );
  const [first] = rows;
  if (first === undefined) throw notFound(request, ended !== undefined);
  const candidates = await readLogTable(request.folder, 'candidates');
  const policyOf = await policiesFor(request);
  const numbers = new Set(rows.map((row) => value(decisions, 'decision', row)));
  const candidateRows = rowsWhere(
    candidates,
    (row) => numbers.has(value(candidates, 'decision', row)) && text(candidates, 'run', row) === run,
  );
  const sloMs = value(decisions, 'slo_ms', first);
  return {
    run,
    request: number,
    model: text(decisions, 'model', first),
    class: text(decisions, 'class', first),
    items: value(decisions, 'items', first),
    sloMs,
    decisions: rows.map((row) => {
      const own = value(decisions, 'decision', row);
      const members = candidateRows.filter((candidate) => value(candidates, 'decision', candidate) === own);
      return explainDecision(new LoggedDecision(decisions, row, candidates, members), policyOf, request.free);
    }),
    outcome: ended === undefined ? undefined : outcomeOf(outcomes, ended, sloMs),
    damaged: damagedOf(decisions, outcomes, candidates),
  };
}

/** One decision as it stood, made anew from the log. */
class LoggedDecision {
  readonly request: DispatchRequest;
  readonly fleet: FleetView;
  readonly candidates: readonly DispatchCandidate[];
  readonly devices: readonly string[];
  readonly scores: readonly (number | undefined)[];
  readonly refusalScore: number | undefined;
  readonly chosen: number;
  readonly policy: string;
  readonly fallback: string;
  readonly propensity: number;
  readonly time: string;

  constructor(decisions: LogRows, row: number, candidates: LogRows, members: readonly number[]) {
    const sloClass = text(decisions, 'class', row);
    this.request = {
      model: text(decisions, 'model', row),
      items: value(decisions, 'items', row),
      sloMs: value(decisions, 'slo_ms', row),
      class: isSloClass(sloClass) ? sloClass : 'standard',
      nowMs: value(decisions, 'now_ms', row),
      arrivedMs: value(decisions, 'arrived_ms', row),
      mayShed: cell(decisions, 'may_shed', row) === true,
    };
    this.fleet = {
      load1s: value(decisions, 'fleet_load_1s', row),
      load30s: value(decisions, 'fleet_load_30s', row),
      burstiness: value(decisions, 'fleet_burstiness', row),
      interactiveShare: value(decisions, 'fleet_interactive_share', row),
      hourPhase: value(decisions, 'fleet_hour_phase', row),
      usdPerKwh: value(decisions, 'fleet_usd_per_kwh', row),
    };
    const places = members
      .filter((member) => value(candidates, 'place', member) >= 0)
      .sort((one, other) => value(candidates, 'place', one) - value(candidates, 'place', other));
    const refusal = members.find((member) => value(candidates, 'place', member) < 0);
    this.candidates = places.map((member) => {
      const candidate = newDispatchCandidate();
      const bytes = cell(candidates, 'figures', member) as Uint8Array;
      const figures = new Float64Array(bytes.slice().buffer, 0, figureCount);
      readFigures(figures, 0, text(candidates, 'masked', member), candidate);
      return candidate;
    });
    this.devices = places.map((member) => text(candidates, 'device', member));
    this.scores = places.map((member) => some(candidates, 'score', member));
    this.refusalScore = refusal === undefined ? undefined : some(candidates, 'score', refusal);
    this.chosen = value(decisions, 'chosen', row);
    this.policy = text(decisions, 'policy', row);
    this.fallback = text(decisions, 'fallback', row);
    this.propensity = value(decisions, 'propensity', row);
    this.time = (cell(decisions, 'time', row) as Date).toISOString();
  }

  /** The choice in words. */
  named(choice: number): string {
    return choice === SHED ? 'refused' : (this.devices[choice] ?? 'none');
  }

  ask(policy: DispatchPolicy, candidates: readonly DispatchCandidate[]): string {
    return this.named(policy.choose(this.request, candidates, this.fleet, new RandomStream('explain')));
  }
}

function explainDecision(
  logged: LoggedDecision,
  policyOf: (name: string) => DispatchPolicy | undefined,
  free: string,
): ExplainedDecision {
  const { request, fleet, candidates, devices, scores, chosen, policy, fallback, propensity, refusalScore, time } =
    logged;
  const waitedMs = request.nowMs - request.arrivedMs;
  const again = policyOf(policy);
  return {
    ...{ time, waitedMs, policy, fallback, propensity, refusalScore },
    candidates: candidates.map((candidate, index) => ({
      device: devices[index] ?? '',
      isChosen: index === chosen,
      masked: candidate.masked,
      expectedMs: expectedMs(candidate),
      netMs: candidate.netMs,
      runningMs: candidate.runningMs,
      aheadMs: candidate.queuedAheadMs,
      serviceMs: candidate.serviceMs,
      slackMs: request.sloMs - waitedMs - expectedMs(candidate),
      queueItems: candidate.queueItems,
      costUsd: marginalUsd(candidate, fleet),
      score: scores[index],
    })),
    choice: logged.named(chosen),
    again: again === undefined ? undefined : logged.ask(again, candidates),
    whenFree: free === '' ? undefined : supposeFree(logged, policyOf(policy), free),
  };
}

function supposeFree(
  logged: LoggedDecision,
  policy: DispatchPolicy | undefined,
  free: string,
): ExplainedDecision['whenFree'] {
  if (policy === undefined) return undefined;
  const index = logged.devices.findIndex((place) => isOnDevice(place, free));
  const found = logged.candidates[index];
  const candidates = logged.candidates.map((candidate) =>
    candidate.device === found?.device ? emptied(candidate) : candidate,
  );
  const own = candidates[index];
  return {
    device: logged.devices[index] ?? free,
    choice: logged.ask(policy, candidates),
    expectedMs: own === undefined ? undefined : expectedMs(own),
    costUsd: own === undefined ? undefined : marginalUsd(own, logged.fleet),
    masked: own?.masked ?? 'no candidate',
  };
}

/** The candidate with nothing running and nothing waiting on its device. What else masks it stays. */
function emptied(candidate: DispatchCandidate): DispatchCandidate {
  return {
    ...candidate,
    runningMs: 0,
    queuedAheadMs: 0,
    serviceMs: candidate.soloMs,
    marginalMs: candidate.soloMs,
    workMs: 0,
    queueItems: 0,
    deviceItems: 0,
  };
}

/** `cpu:0` and `host/cpu:0` both name a replica whose first stage is there. */
function isOnDevice(place: string, device: string): boolean {
  const [first = ''] = place.split(' > ');
  return first === device || first.endsWith(`/${device}`);
}

/** Makes the policy of that name, fresh each time: rules may remember. Undefined for a learned one whose file was not given. */
async function policiesFor({ policyPath }: ExplainRequest): Promise<(name: string) => DispatchPolicy | undefined> {
  const learned = policyPath === '' ? undefined : await readPolicyFile(policyPath);
  return (name) => {
    if (learned !== undefined) {
      if (learned.name !== name) {
        throw intarsiaError(
          'INVALID_ARGUMENT',
          `${policyPath} is policy ${learned.name}; the decision was made by ${name}`,
        );
      }
      return dispatchOf(learned);
    }
    try {
      return dispatchByName(name);
    } catch {
      // Not a rule's name: a learned policy's, and its file was not named.
      return undefined;
    }
  };
}

function outcomeOf(outcomes: LogRows, row: number, sloMs: number): ExplainedOutcome {
  const outcome = text(outcomes, 'outcome', row);
  const durationMs = value(outcomes, 'duration_ms', row);
  const queueUs = some(outcomes, 'queue_us', row);
  const computeUs = some(outcomes, 'compute_us', row);
  return {
    outcome,
    shed: cell(outcomes, 'shed', row) === true,
    durationMs,
    missed: outcome !== 'ok' || durationMs > sloMs,
    device: text(outcomes, 'device', row),
    emulated: cell(outcomes, 'emulated', row) === true,
    queueMs: queueUs === undefined ? undefined : queueUs / 1000,
    computeMs: computeUs === undefined ? undefined : computeUs / 1000,
    batchItems: value(outcomes, 'batch_items', row),
    costUsd: some(outcomes, 'cost_usd', row),
    joules: some(outcomes, 'joules', row),
  };
}

/** Run and number; of a number alone the latest run that decided about it. */
function wantedRequest(wanted: string, decisions: LogRows): { readonly run: string; readonly number: number } {
  if (wanted === 'last') {
    const row = decisions.rows - 1;
    return { run: text(decisions, 'run', row), number: value(decisions, 'request', row) };
  }
  const [, run, digits] = /^(?:(.+)\/)?(\d{1,16})$/u.exec(wanted) ?? [];
  if (digits === undefined) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `a request is a number, RUN/NUMBER or 'last'; this is '${wanted.slice(0, 80)}'`,
    );
  }
  const number = Number(digits);
  if (run !== undefined) return { run, number };
  const latest = rowsWhere(decisions, (row) => value(decisions, 'request', row) === number).at(-1);
  return { run: latest === undefined ? '' : text(decisions, 'run', latest), number };
}

function notFound({ request, folder }: ExplainRequest, hasEnded: boolean): Error {
  const why = hasEnded
    ? 'it named neither a time nor a class, so that no policy decided about it'
    : 'it was not sampled, is not written yet, or its file has been removed';
  return intarsiaError('NOT_FOUND', `the log ${folder} has no decision about request ${request}: ${why}`, { request });
}

function damagedOf(...tables: readonly LogRows[]): readonly DamagedFile[] {
  return tables.flatMap(({ damaged }) => damaged);
}

function rowsWhere({ rows }: LogRows, isWanted: (row: number) => boolean): readonly number[] {
  const found: number[] = [];
  for (let row = 0; row < rows; row += 1) if (isWanted(row)) found.push(row);
  return found;
}

function cell({ columns }: LogRows, name: string, row: number): unknown {
  return columns.get(name)?.[row];
}

function text(table: LogRows, name: string, row: number): string {
  const found = cell(table, name, row);
  return typeof found === 'string' ? found : '';
}

function value(table: LogRows, name: string, row: number): number {
  return Number(cell(table, name, row) ?? Number.NaN);
}

function some(table: LogRows, name: string, row: number): number | undefined {
  const found = cell(table, name, row);
  return found === undefined || found === null ? undefined : Number(found);
}
