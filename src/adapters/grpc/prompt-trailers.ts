/**
 * The trailers of a short answer, in the same write as the answer.
 *
 * Node puts trailers off to the next turn of its loop: an answer then takes two writes, and wakes its client twice. HTTP/2
 * would take them where Node asks for them (`wantTrailers`), but the only way there is the handle behind the stream, which
 * is no public interface. It is used on releases of Node where it is known to be as expected; elsewhere trailers go the
 * public way, one turn later.
 *
 * The stream may close before Node has told that its last piece is written: whoever waits for that uses `sendTrailers`.
 */
import type { ServerHttp2Stream } from 'node:http2';

interface StreamHandle {
  /** Names and values, each ended by a zero, and a byte of flags after each value; then how many. Negative: an error. */
  readonly trailers: (headers: readonly [text: string, count: number]) => number;
}

const knownReleases = /^20\./;
const noFlags = '\0';

/** Sends `name: value` as the only trailer. To be called in `wantTrailers`. */
export function promptTrailer(name: string, value: string): (stream: ServerHttp2Stream) => void {
  const headers = [`${name}\0${value}\0${noFlags}`, 1] as const;
  const trailers = { [name]: value };
  return (stream) => {
    const handle = handleOf(stream);
    if (handle === undefined || handle.trailers(headers) < 0) stream.sendTrailers(trailers);
  };
}

let key: symbol | undefined;

function handleOf(stream: ServerHttp2Stream): StreamHandle | undefined {
  if (!knownReleases.test(process.versions.node)) return undefined;
  key ??= Object.getOwnPropertySymbols(stream).find(({ description }) => description === 'kHandle');
  if (key === undefined) return undefined;
  const handle = Reflect.get(stream, key) as Partial<StreamHandle> | undefined;
  return typeof handle?.trailers === 'function' ? (handle as StreamHandle) : undefined;
}
