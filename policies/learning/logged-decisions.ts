/**
 * A decision log as data to learn from and to judge by: for each decision the rows that were allowed, the one taken, the
 * chance it was taken with, and what came of its request. Episodes, so that returns, advantages and estimates are computed
 * from a log as from simulations.
 */
import { refusalPlace } from '#core/decision-log/log-tables.js';
import { intarsiaError } from '#core/errors.js';
import { SHED } from '#core/scheduling/dispatch-view.js';
import {
  dispatchSchema,
  featuresOf,
  planFeatureNames,
  planSchema,
  type DispatchSchema,
} from '#core/scheduling/features.js';
import { sloClasses } from '#core/scheduling/slo-class.js';
import type { LoggedDecisions } from './awr.js';
import type { Decisions, Outcomes } from './environment.js';
import { RewardLine, type RewardOptions } from './returns.js';

/** Columns of a log's tables by name, as they are read from its files. */
export interface LogData {
  readonly decisions: LogDataTable;
  readonly candidates: LogDataTable;
  readonly outcomes: LogDataTable;
}

export interface LogDataTable {
  readonly rows: number;
  readonly columns: ReadonlyMap<string, readonly unknown[]>;
}

/** A run of a gateway. */
export interface LoggedEpisode {
  readonly run: string;
  /** Numbers in a row. */
  readonly width: number;
  readonly outcomes: Outcomes;
  readonly decisions: Decisions;
  /** By decision: the chance with which the row was taken, who took it, and the request's place in the outcomes (-1: none). */
  readonly propensities: Float64Array;
  readonly policies: readonly string[];
  readonly outcomeOf: Int32Array;
}

/** Decisions of a log as `regressOnAdvantages` takes them, with their propensities. */
export interface LoggedReturns extends LoggedDecisions {
  readonly propensities: Float64Array;
}

/**
 * Runs of the log in the order of their names, with rows of the schema that is asked for: where the policy that decided saw
 * nothing of the fluid programme, rows say that there was no plan. Decisions without a choice, because everything was masked, are left out; so are
 * outcomes of requests that nobody decided about.
 * @throws FAILED_PRECONDITION when the log's features are not those of this version.
 */
export function episodesOfLog(data: LogData, schema: DispatchSchema = dispatchSchema): readonly LoggedEpisode[] {
  for (const logged of new Set(texts(data.decisions, 'schema'))) {
    if (logged === dispatchSchema || logged === planSchema) continue;
    throw intarsiaError(
      'FAILED_PRECONDITION',
      `the log has features of schema ${logged}; this version's are ${dispatchSchema} and ${planSchema}`,
    );
  }
  const names = featuresOf(schema);
  const runs = [...new Set(texts(data.decisions, 'run'))].sort();
  const decisionsOf = byRun(data.decisions);
  const candidatesOf = byRun(data.candidates);
  const outcomesOf = byRun(data.outcomes);
  return runs.map((run) =>
    episodeOf(run, data, names, {
      decisions: decisionsOf.get(run) ?? [],
      candidates: candidatesOf.get(run) ?? [],
      outcomes: outcomesOf.get(run) ?? [],
    }),
  );
}

/** All decisions of a log with their returns. @throws what `episodesOfLog` throws. */
export function returnsOfLog(data: LogData, options: RewardOptions): LoggedReturns {
  return returnsOfEpisodes(episodesOfLog(data), options);
}

/** All decisions of the episodes with their returns. */
export function returnsOfEpisodes(episodes: readonly LoggedEpisode[], options: RewardOptions): LoggedReturns {
  const starts: number[] = [0];
  for (const { decisions } of episodes) {
    const before = starts.at(-1) ?? 0;
    for (let index = 1; index < decisions.rowStarts.length; index += 1) {
      starts.push(before + (decisions.rowStarts[index] ?? 0));
    }
  }
  const rows = new Float32Array(episodes.reduce((sum, { decisions }) => sum + decisions.rows.length, 0));
  let at = 0;
  for (const { decisions } of episodes) {
    rows.set(decisions.rows, at);
    at += decisions.rows.length;
  }
  return {
    rows,
    rowStarts: Uint32Array.from(starts),
    choices: Uint16Array.from(episodes.flatMap(({ decisions }) => [...decisions.choices])),
    returns: Float32Array.from(
      episodes.flatMap(({ decisions, outcomes }) => [...new RewardLine(outcomes, options).returnsAt(decisions.atMs)]),
    ),
    propensities: Float64Array.from(episodes.flatMap(({ propensities }) => [...propensities])),
  };
}

/**
 * The decisions of each episode before and after a share of them, by time: what is learned from, and what judges it. Outcomes
 * belong to both, because what came of a decision may end later.
 */
export function splitEpisodes(
  episodes: readonly LoggedEpisode[],
  share: number,
): { readonly earlier: readonly LoggedEpisode[]; readonly later: readonly LoggedEpisode[] } {
  const at = ({ decisions }: LoggedEpisode): number => Math.floor(share * decisions.choices.length);
  return {
    earlier: episodes.map((episode) => partOf(episode, 0, at(episode))),
    later: episodes.map((episode) => partOf(episode, at(episode), episode.decisions.choices.length)),
  };
}

function partOf(episode: LoggedEpisode, from: number, to: number): LoggedEpisode {
  const { decisions, propensities, policies, outcomeOf, width } = episode;
  const { rows, rowStarts, choices, atMs, logProbs, teacherChoices } = decisions;
  const first = rowStarts[from] ?? 0;
  return {
    ...episode,
    decisions: {
      rows: rows.subarray(first * width, (rowStarts[to] ?? 0) * width),
      rowStarts: rowStarts.slice(from, to + 1).map((start) => start - first),
      choices: choices.subarray(from, to),
      atMs: atMs.subarray(from, to),
      logProbs: logProbs.subarray(from, to),
      teacherChoices: teacherChoices.subarray(from, to),
    },
    propensities: propensities.subarray(from, to),
    policies: policies.slice(from, to),
    outcomeOf: outcomeOf.subarray(from, to),
  };
}

interface Members {
  readonly decisions: readonly number[];
  readonly candidates: readonly number[];
  readonly outcomes: readonly number[];
}

function episodeOf(run: string, data: LogData, names: readonly string[], members: Members): LoggedEpisode {
  const column = (table: keyof LogData, name: string): readonly unknown[] => columnOf(data[table], name);
  const number = (table: keyof LogData, name: string, row: number): number =>
    Number(column(table, name)[row] ?? Number.NaN);

  const candidatesOf = new Map<number, number[]>();
  for (const row of members.candidates) {
    const decision = number('candidates', 'decision', row);
    const own = candidatesOf.get(decision);
    if (own === undefined) candidatesOf.set(decision, [row]);
    else own.push(row);
  }
  const firstOf = new Map<number, number>();
  const kept: { readonly row: number; readonly allowed: readonly number[]; readonly choice: number }[] = [];
  for (const row of [...members.decisions].sort(
    (one, other) => number('decisions', 'now_ms', one) - number('decisions', 'now_ms', other),
  )) {
    const request = number('decisions', 'request', row);
    if (!firstOf.has(request)) firstOf.set(request, row);
    const all = candidatesOf.get(number('decisions', 'decision', row)) ?? [];
    const allowed = all.filter((candidate) => column('candidates', 'masked')[candidate] === '');
    const chosen = number('decisions', 'chosen', row);
    const place = chosen === SHED ? refusalPlace : chosen;
    const choice = allowed.findIndex((candidate) => number('candidates', 'place', candidate) === place);
    if (choice >= 0) kept.push({ row, allowed, choice });
  }

  const decided = members.outcomes.filter((row) => firstOf.has(number('outcomes', 'request', row)));
  decided.sort((one, other) => number('outcomes', 'arrived_ms', one) - number('outcomes', 'arrived_ms', other));
  const outcomeRows = new Map(decided.map((row, index) => [number('outcomes', 'request', row), index]));
  const outcomes = outcomesOf(decided.length);
  for (const [index, row] of decided.entries()) {
    const decision = firstOf.get(number('outcomes', 'request', row)) ?? -1;
    const arrivedMs = number('outcomes', 'arrived_ms', row);
    const durationMs = number('outcomes', 'duration_ms', row);
    const sloMs = number('decisions', 'slo_ms', decision);
    const isAnswered = column('outcomes', 'outcome')[row] === 'ok';
    outcomes.arrivedMs[index] = arrivedMs;
    outcomes.doneMs[index] = arrivedMs + durationMs;
    outcomes.cost[index] = share(number('outcomes', 'cost_usd', row), number('decisions', 'reference_usd', decision));
    outcomes.energy[index] = share(
      number('outcomes', 'joules', row),
      number('decisions', 'reference_joules', decision),
    );
    outcomes.missed[index] = isAnswered && durationMs <= sloMs ? 0 : 1;
    outcomes.lateness[index] = isAnswered ? (durationMs - sloMs) / sloMs : 0;
    outcomes.sloClass[index] = Math.max(0, sloClasses.indexOf(column('decisions', 'class')[decision] as never));
  }

  const rowStarts = new Uint32Array(kept.length + 1);
  for (const [index, { allowed }] of kept.entries()) rowStarts[index + 1] = (rowStarts[index] ?? 0) + allowed.length;
  const width = names.length;
  const rows = new Float32Array((rowStarts[kept.length] ?? 0) * width);
  // Logs of releases before the fluid programme's features have no columns of them.
  const features = names.map((name) =>
    planFeatureNames.includes(name) ? (data.candidates.columns.get(name) ?? []) : column('candidates', name),
  );
  for (const [index, { allowed }] of kept.entries()) {
    for (const [place, candidate] of allowed.entries()) {
      const first = ((rowStarts[index] ?? 0) + place) * width;
      for (const [feature, values] of features.entries()) rows[first + feature] = (values[candidate] ?? 0) as number;
    }
  }
  const choices = Uint16Array.from(kept, ({ choice }) => choice);
  const propensities = Float64Array.from(kept, ({ row }) => number('decisions', 'propensity', row));
  return {
    run,
    width,
    outcomes,
    decisions: {
      ...{ rows, rowStarts, choices },
      atMs: Float64Array.from(kept, ({ row }) => number('decisions', 'now_ms', row)),
      logProbs: Float32Array.from(propensities, (chance) => Math.log(chance)),
      teacherChoices: choices.slice(),
    },
    propensities,
    policies: kept.map(({ row }) => column('decisions', 'policy')[row] as string),
    outcomeOf: Int32Array.from(kept, ({ row }) => outcomeRows.get(number('decisions', 'request', row)) ?? -1),
  };
}

function outcomesOf(length: number): Outcomes {
  return {
    arrivedMs: new Float64Array(length),
    doneMs: new Float64Array(length),
    cost: new Float64Array(length),
    energy: new Float64Array(length),
    missed: new Uint8Array(length),
    lateness: new Float64Array(length),
    sloClass: new Uint8Array(length),
    lost: 0,
  };
}

/** 0 where either is unknown. */
function share(value: number, reference: number): number {
  return reference > 0 && Number.isFinite(value) ? value / reference : 0;
}

function byRun(table: LogDataTable): ReadonlyMap<string, readonly number[]> {
  const members = new Map<string, number[]>();
  for (const [row, run] of texts(table, 'run').entries()) {
    const own = members.get(run);
    if (own === undefined) members.set(run, [row]);
    else own.push(row);
  }
  return members;
}

function texts(table: LogDataTable, name: string): readonly string[] {
  return columnOf(table, name) as readonly string[];
}

function columnOf({ rows, columns }: LogDataTable, name: string): readonly unknown[] {
  const column = columns.get(name);
  if (column !== undefined || rows === 0) return column ?? [];
  throw intarsiaError('FAILED_PRECONDITION', `the log has no column ${name}`, { column: name });
}
