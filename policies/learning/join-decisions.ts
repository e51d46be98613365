/** Decisions of several episodes as one set, in a drawn order: what imitation learns from. */
import type { Random } from '#ports/random.js';
import { shuffle } from './bc.js';
import type { Decisions, EpisodeRecord } from './environment.js';

/** Takes at most this many decisions; a full set of 20 rows of 32 numbers is 500 MB at this bound. */
const decisionsMax = 200_000;

export function joinDecisions(records: readonly EpisodeRecord[], featureCount: number, random: Random): Decisions {
  const all = records.flatMap(({ decisions }) => (decisions === undefined ? [] : [decisions]));
  const owners: number[] = [];
  const places: number[] = [];
  for (const [owner, { choices }] of all.entries()) {
    for (let place = 0; place < choices.length; place += 1) {
      owners.push(owner);
      places.push(place);
    }
  }
  const order = Uint32Array.from(owners, (_, index) => index);
  shuffle(order, random);
  const kept = order.subarray(0, decisionsMax);
  const rowStarts = new Uint32Array(kept.length + 1);
  for (const [index, from] of kept.entries()) {
    const starts = all[owners[from] ?? 0]?.rowStarts;
    const place = places[from] ?? 0;
    rowStarts[index + 1] = (rowStarts[index] ?? 0) + (starts?.[place + 1] ?? 0) - (starts?.[place] ?? 0);
  }
  const rows = new Float32Array((rowStarts[kept.length] ?? 0) * featureCount);
  for (const [index, from] of kept.entries()) {
    const decisions = all[owners[from] ?? 0];
    if (decisions === undefined) continue;
    const place = places[from] ?? 0;
    const first = (decisions.rowStarts[place] ?? 0) * featureCount;
    const end = (decisions.rowStarts[place + 1] ?? 0) * featureCount;
    rows.set(decisions.rows.subarray(first, end), (rowStarts[index] ?? 0) * featureCount);
  }
  const column = (read: (decisions: Decisions, place: number) => number | undefined): number[] =>
    Array.from(kept, (from) => {
      const decisions = all[owners[from] ?? 0];
      return (decisions === undefined ? undefined : read(decisions, places[from] ?? 0)) ?? 0;
    });
  return {
    rows,
    rowStarts,
    atMs: Float64Array.from(column(({ atMs }, place) => atMs[place])),
    choices: Uint16Array.from(column(({ choices }, place) => choices[place])),
    logProbs: Float32Array.from(column(({ logProbs }, place) => logProbs[place])),
    teacherChoices: Uint16Array.from(column(({ teacherChoices }, place) => teacherChoices[place])),
  };
}
