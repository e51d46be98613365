/** Several hosts, deadlines, cancellation, and errors that say what to do. */
import { connect, IntarsiaError, type InferenceClient } from 'intarsia/client';

/** Retries go to another host first, within a budget; a host that fails in a row is left alone for a while. */
export function connectToGrid(endpoints: readonly string[]): InferenceClient {
  return connect({
    endpoints,
    balancing: 'least-in-flight',
    timeoutMs: 2000,
    attemptsMax: 3,
    ejection: { failuresMax: 3, ejectMsMin: 1000 },
  });
}

/** What came of one request, in words a log can hold. `signal` takes it back. */
export async function tryModel(client: InferenceClient, model: string, signal?: AbortSignal): Promise<string> {
  try {
    const answer = await client.infer(model, { x: [1, 2, 3] }, { ...(signal === undefined ? {} : { signal }) });
    return `answered: ${answer.output().asNumbers().join(' ')}`;
  } catch (error) {
    if (!(error instanceof IntarsiaError)) throw error;
    if (error.code === 'CANCELLED') return 'taken back';
    return error.retryable ? `busy (${error.code}): try again later` : `refused (${error.code}): ${error.message}`;
  }
}
