/** Many requests over one stream: the source is asked for the next one when there is room, errors belong to their item. */
import { connect, type StreamRequest } from 'intarsia/client';

/** Model `identity` gives back what it is given; the sum of all answers, and the ids of those that failed. */
export async function sumOverStream(
  endpoint: string,
  numbers: Iterable<number>,
): Promise<{ readonly sum: number; readonly failed: readonly string[] }> {
  function* requests(): Generator<StreamRequest> {
    for (const number of numbers) yield { model: 'identity', inputs: { x: new Float64Array([number]) } };
  }
  const client = connect({ endpoints: endpoint });
  let sum = 0;
  const failed: string[] = [];
  try {
    for await (const item of client.stream(requests(), { windowMax: 16, timeoutMs: 60_000 })) {
      if (item.ok) sum += item.result.output().asFloat64()[0] ?? 0;
      else failed.push(item.id);
    }
  } finally {
    client.close();
  }
  return { sum, failed };
}
