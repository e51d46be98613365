/**
 * What a trainer sees of a world in which decisions are made: episodes it can order, and what happened in them.
 *
 * A decision is a set of feature rows, one for each choice that is allowed (what is masked has no row), of which one was
 * taken. Its consequences come later, in the outcomes of requests. Everything is plain data in typed arrays, so that
 * episodes run in worker threads and their records are moved, not copied. What a scenario is, only the environment knows.
 */
import type { Layer } from '#core/scheduling/network.js';
import type { ObjectiveRows } from '#core/scheduling/objective.js';

/** Who decides in an episode. */
export type Player = Decider & {
  /** How devices form batches; absent: as the world says. */
  readonly batching?: Batcher;
};

/** A rule as `batchingByName` reads it, a learned policy with its shield, or the bare network. */
export type Batcher =
  | string
  | { readonly kind: 'policy'; readonly bytes: Uint8Array }
  | { readonly kind: 'network'; readonly layers: readonly Layer[] };

type Decider =
  | { readonly kind: 'rule'; readonly name: string }
  /** A learned policy with its shield and fallback, as hosts run it: the bytes of its file. */
  | { readonly kind: 'policy'; readonly bytes: Uint8Array }
  /** Somebody's own policy: path of a module. Only worlds that can load code have it. */
  | { readonly kind: 'module'; readonly path: string }
  /** The bare network, without a shield. */
  | {
      readonly kind: 'network';
      readonly layers: readonly Layer[];
      /** `sample` draws from the softmax of the scores, `best` takes the highest. */
      readonly choose: 'sample' | 'best';
    };

export interface EpisodeOrder<Scenario> {
  /** World and arrivals. Two orders with equal scenarios meet the same arrivals, whoever decides. */
  readonly scenario: Scenario;
  readonly player: Player;
  /** Seed of the player's own dice, which never touch the world's. */
  readonly dice: string;
  /** A rule that is asked at every decision what it would have done; its answer is recorded, not followed. */
  readonly teacher?: string;
  /** Whether decisions are recorded, or only outcomes. */
  readonly record: boolean;
  /** Of so many decisions one is recorded. Default 1: all. */
  readonly recordEvery?: number;
  /** Whether the least objective that any policy could reach is computed, too. It takes longer than the episode. */
  readonly withBound?: boolean;
}

/** Columns over requests, in the order of their arrival; costs, misses and lateness as the objective takes them. */
export interface Outcomes extends ObjectiveRows {
  readonly arrivedMs: Float64Array;
  /** When it was answered, failed or was shed. */
  readonly doneMs: Float64Array;
}

/** Columns over decisions; rows of all decisions lie one after another. */
export interface Decisions {
  readonly rows: Float32Array;
  /** Number of the first row of each decision, and at the end the number of rows. */
  readonly rowStarts: Uint32Array;
  readonly atMs: Float64Array;
  /** Row taken, counted within the decision. */
  readonly choices: Uint16Array;
  /** Logarithm of the probability with which it was taken; 0 for a rule. */
  readonly logProbs: Float32Array;
  /** Row the teacher would have taken; equal to `choices` when nobody was asked. */
  readonly teacherChoices: Uint16Array;
}

/** Sums over an episode. */
export interface EpisodeTotals {
  /** US dollars and joules, of what was computed in vain, too (dollars only). */
  readonly usd: number;
  readonly joules: number;
  /** From the first arrival to the last answer, ms. */
  readonly spanMs: number;
  readonly decisions: number;
  /** Decisions that a shield left to the fallback rule. */
  readonly fallbacks: number;
  /** Decisions of a learned batching policy, and those of them left to its rule; 0 where a rule forms batches. */
  readonly batchDecisions: number;
  readonly batchFallbacks: number;
  /** Answers that the mask forbids: a masked candidate, one that there is not, refusing what may not be refused. */
  readonly maskViolations: number;
}

export interface EpisodeRecord {
  readonly outcomes: Outcomes;
  /** Absent where nobody summed up, as in a log. */
  readonly totals?: EpisodeTotals;
  /** When it was asked for and the world can compute it. */
  readonly bound?: number;
  readonly decisions?: Decisions;
  /** Rows that a batching network scored, a sample of them; where decisions are recorded and it is one. */
  readonly batchRows?: Float32Array;
  /** Digest of everything that happened. */
  readonly hash: string;
}

/** A world. Same order, same record. */
export interface Environment<Scenario> {
  readonly featureCount: number;
  /** Names of the classes by their index in `Outcomes.sloClass`. */
  readonly classes: readonly string[];
  runEpisode(order: EpisodeOrder<Scenario>): Promise<EpisodeRecord>;
}

/** Runs many episodes, on one thread or several; answers in the order of the orders, whatever finished first. */
export interface Rollouts<Scenario> {
  run(orders: readonly EpisodeOrder<Scenario>[]): Promise<readonly EpisodeRecord[]>;
}

/** On this thread, one after the other. */
export function rolloutsHere<Scenario>(environment: Environment<Scenario>): Rollouts<Scenario> {
  return {
    run: async (orders) => {
      const records: EpisodeRecord[] = [];
      for (const order of orders) records.push(await environment.runEpisode(order));
      return records;
    },
  };
}

/** Collects the decisions of an episode in arrays that grow. One row is `featureCount` numbers. */
export class DecisionRecorder {
  readonly #featureCount: number;
  readonly #choices: number[] = [];
  readonly #logProbs: number[] = [];
  readonly #teacher: number[] = [];
  readonly #atMs: number[] = [];
  readonly #starts: number[] = [0];
  #rows: Float32Array;
  #rowCount = 0;

  constructor(featureCount: number) {
    this.#featureCount = featureCount;
    this.#rows = new Float32Array(featureCount * 4096);
  }

  /** Adds a decision among the first `count` rows of `rows`. */
  add(decision: {
    readonly rows: Float32Array;
    readonly count: number;
    readonly atMs: number;
    readonly choice: number;
    readonly logProb: number;
    readonly teacher: number;
  }): void {
    const { rows, count } = decision;
    const needed = (this.#rowCount + count) * this.#featureCount;
    if (needed > this.#rows.length) {
      const larger = new Float32Array(Math.max(needed, this.#rows.length * 2));
      larger.set(this.#rows);
      this.#rows = larger;
    }
    this.#rows.set(rows.subarray(0, count * this.#featureCount), this.#rowCount * this.#featureCount);
    this.#rowCount += count;
    this.#starts.push(this.#rowCount);
    this.#choices.push(decision.choice);
    this.#logProbs.push(decision.logProb);
    this.#teacher.push(decision.teacher);
    this.#atMs.push(decision.atMs);
  }

  finish(): Decisions {
    return {
      rows: this.#rows.slice(0, this.#rowCount * this.#featureCount),
      rowStarts: Uint32Array.from(this.#starts),
      atMs: Float64Array.from(this.#atMs),
      choices: Uint16Array.from(this.#choices),
      logProbs: Float32Array.from(this.#logProbs),
      teacherChoices: Uint16Array.from(this.#teacher),
    };
  }
}
