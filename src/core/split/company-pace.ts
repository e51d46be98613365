/**
 * How fast devices answer while all of them work, from the moments of their answers. Each has its next run waiting, so an
 * answer's own latency says nothing: what counts is the time from one answer to the next.
 */

/** What came before so many answers of each was warming up. */
const warmAnswers = 2;

/**
 * Milliseconds between two answers of each device, of the middle half of what was seen while all were at work: a pause of
 * the machine is no property of a company. Empty for all where the time that they shared is too short to tell.
 * @param answers Moments of each device's answers, ms, ascending.
 * @param inFlight Runs that each device had at once; the answers to the last of them came when others had ended already.
 */
export function pacesTogether(
  answers: readonly (readonly number[])[],
  inFlight: number,
): readonly (readonly number[])[] {
  const fromMs = Math.max(...answers.map((each) => each[warmAnswers - 1] ?? Infinity));
  const toMs = Math.min(...answers.map((each) => each.at(-inFlight) ?? -Infinity));
  const paces = answers.map((each) => {
    const inside = each.filter((atMs) => atMs >= fromMs && atMs <= toMs);
    // Answers that came at once, after twice the time, are as many as two that did not.
    const step = Math.min(inFlight, inside.length - 1);
    return step < 1 ? [] : middleHalf(inside.slice(step).map((atMs, index) => (atMs - (inside[index] ?? atMs)) / step));
  });
  return paces.every(({ length }) => length > 0) ? paces : answers.map(() => []);
}

function middleHalf(values: readonly number[]): readonly number[] {
  const sorted = [...values].sort((a, b) => a - b);
  const cut = Math.floor(sorted.length / 4);
  return sorted.slice(cut, sorted.length - cut);
}
