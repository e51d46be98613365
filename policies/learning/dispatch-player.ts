/**
 * Whoever plays an episode, as a dispatch policy: a rule or a network, recorded if wanted. Rows come from the one feature
 * builder, with the fluid programme's turns; a recorded decision holds the rows that may be chosen, in the order of the candidates, refusing last.
 */
import { intarsiaError } from '#core/errors.js';
import {
  NONE,
  SHED,
  type Chance,
  type ChoiceTrace,
  type DispatchCandidate,
  type DispatchPolicy,
  type DispatchRequest,
  type FleetView,
} from '#core/scheduling/dispatch-view.js';
import { planFeatureCount, writeRows } from '#core/scheduling/features.js';
import { RatePlan } from '#core/scheduling/rate-plan.js';
import { SimdScorer } from '#core/scheduling/simd-scorer.js';
import type { DecisionRecorder, Player } from './environment.js';
import { bestChoice, drawChoice } from './layers.js';

export interface DispatchPlayerOptions {
  readonly player: Player;
  /** Makes a rule of its name. */
  readonly rule: (name: string) => DispatchPolicy;
  /** The policy of a player that is neither a rule nor a network. */
  readonly own?: DispatchPolicy | undefined;
  readonly recorder: DecisionRecorder | undefined;
  /** Of so many decisions one is recorded. Default 1: all. */
  readonly recordEvery?: number | undefined;
  readonly teacher: string | undefined;
  /** The fluid programme that the rows show fills devices to this share of their time. Default 1. */
  readonly planShare?: number | undefined;
  /** The player's own dice. */
  readonly dice: Chance;
}

export function dispatchPlayer(options: DispatchPlayerOptions): DispatchPolicy {
  return new DispatchPlayer(options);
}

class DispatchPlayer implements DispatchPolicy {
  readonly name: string;
  readonly trace?: ChoiceTrace;
  readonly #rule: DispatchPolicy | undefined;
  readonly #scorer: SimdScorer | undefined;
  readonly #samples: boolean;
  readonly #teacher: DispatchPolicy | undefined;
  readonly #recorder: DecisionRecorder | undefined;
  readonly #dice: Chance;
  readonly #plan: RatePlan;
  readonly #recordEvery: number;
  #decisions = 0;
  readonly #scale = { usd: 0, joules: 0 };
  #rows = new Float32Array(0);
  #scores = new Float32Array(0);
  /** Candidate of each row; `SHED` for the last one where it refuses. */
  #answers = new Int32Array(0);

  constructor({ player, rule, own, recorder, recordEvery = 1, teacher, planShare, dice }: DispatchPlayerOptions) {
    this.#plan = new RatePlan(planShare);
    this.#rule = player.kind === 'rule' ? rule(player.name) : own;
    this.#scorer =
      player.kind === 'network' ? new SimdScorer({ layers: player.layers, activation: 'tanh' }) : undefined;
    this.#samples = player.kind === 'network' && player.choose === 'sample';
    this.#teacher = teacher === undefined ? undefined : rule(teacher);
    this.#recorder = recorder;
    this.#recordEvery = recordEvery;
    this.#dice = dice;
    this.name = this.#rule?.name ?? 'network';
    if (this.#rule?.trace !== undefined) this.trace = this.#rule.trace;
  }

  finished(...told: Parameters<NonNullable<DispatchPolicy['finished']>>): void {
    this.#rule?.finished?.(...told);
  }

  choose(request: DispatchRequest, candidates: readonly DispatchCandidate[], fleet: FleetView): number {
    const ruled = this.#rule?.choose(request, candidates, fleet, this.#dice);
    if (ruled !== undefined && this.#recorder === undefined) return ruled;
    this.#plan.observe(request, candidates, fleet);
    const chosen = this.#decide(request, candidates, fleet, ruled);
    if (chosen >= 0) this.#plan.chose(candidates[chosen] as DispatchCandidate);
    return chosen;
  }

  #decide(
    request: DispatchRequest,
    candidates: readonly DispatchCandidate[],
    fleet: FleetView,
    ruled: number | undefined,
  ): number {
    this.#decisions += 1;
    const isRecorded = this.#recorder !== undefined && this.#decisions % this.#recordEvery === 0;
    if (ruled !== undefined && !isRecorded) return ruled;
    const count = this.#write(request, candidates, fleet);
    if (count === 0) return NONE;
    let row = 0;
    let logProb = 0;
    if (ruled !== undefined) row = this.#rowOf(ruled, count);
    else if (this.#scorer !== undefined) {
      this.#scorer.score(this.#rows, count, this.#scores);
      if (this.#samples) {
        row = drawChoice(this.#scores, count, this.#dice);
        logProb = Math.log(this.#scores[row] as number);
      } else row = bestChoice(this.#scores, count);
    }
    if (this.#recorder !== undefined && isRecorded) {
      const wanted = this.#teacher?.choose(request, candidates, fleet, this.#dice);
      const teacher = wanted === undefined ? row : this.#rowOf(wanted, count);
      this.#recorder.add({ rows: this.#rows, count, atMs: request.nowMs, choice: row, logProb, teacher });
    }
    return this.#answers[row] as number;
  }

  /** Writes the rows that may be chosen, one after another; answers how many. */
  #write(request: DispatchRequest, candidates: readonly DispatchCandidate[], fleet: FleetView): number {
    const rowsMax = candidates.length + 1;
    if (this.#scores.length < rowsMax) {
      this.#rows = new Float32Array(rowsMax * planFeatureCount);
      this.#scores = new Float32Array(rowsMax);
      this.#answers = new Int32Array(rowsMax);
    }
    const written = writeRows(request, candidates, fleet, this.#scale, this.#rows, this.#plan);
    let count = 0;
    for (let row = 0; row < written; row += 1) {
      const isRefusal = row === candidates.length;
      if (!isRefusal && candidates[row]?.masked !== '') continue;
      if (count < row) {
        this.#rows.copyWithin(count * planFeatureCount, row * planFeatureCount, (row + 1) * planFeatureCount);
      }
      this.#answers[count] = isRefusal ? SHED : row;
      count += 1;
    }
    // Refusing is no choice where everything is masked: the gateway says why.
    return count === 1 && this.#answers[0] === SHED ? 0 : count;
  }

  #rowOf(answer: number, count: number): number {
    const row = this.#answers.subarray(0, count).indexOf(answer);
    if (row >= 0) return row;
    throw intarsiaError('INTERNAL', `a rule chose ${answer}, which is masked`, { answer });
  }
}
