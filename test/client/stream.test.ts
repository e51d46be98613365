import { afterEach, describe, expect, it } from 'vitest';
import { connect } from '#client/index.js';
import type { InferenceClient, StreamItem, StreamOptions, StreamRequest } from '#client/index.js';
import { startPretendServer, StatusError, streamEcho, streamError } from './pretend-server.js';
import type { PretendServer, StreamHandler } from './pretend-server.js';

const opened: { close(): void }[] = [];
afterEach(() => {
  for (const thing of opened.splice(0)) thing.close();
});

async function pair(stream: StreamHandler): Promise<{ server: PretendServer; client: InferenceClient }> {
  const server = await startPretendServer({ stream });
  const client = connect({ endpoints: server.endpoint });
  opened.push(client, { close: () => server.stop() });
  return { server, client };
}

function* requests(count: number): Generator<StreamRequest> {
  for (let index = 0; index < count; index += 1) yield { model: 'm', inputs: { x: new Int32Array([index]) } };
}

async function collect(items: AsyncIterable<StreamItem>): Promise<StreamItem[]> {
  const all: StreamItem[] = [];
  for await (const item of items) all.push(item);
  return all;
}

describe('a stream', () => {
  it('answers every request once, with its id', async () => {
    const { client } = await pair(streamEcho);
    const items = await collect(client.stream(requests(200), { windowMax: 8 }));
    expect(items.map((item) => item.id)).toEqual(Array.from({ length: 200 }, (_, index) => String(index + 1)));
    expect(items.every((item, index) => item.ok && item.result.output('x').asInt32()[0] === index)).toBe(true);
    expect(client.statistics.inFlight).toBe(0);
    expect(client.endpoints[0]?.inFlight).toBe(0);
  });

  it('gives an error to its own item and goes on', async () => {
    const { client } = await pair((request) =>
      request.id === '2' ? streamError('Exceeds maximum queue size', request.id) : streamEcho(request),
    );
    const items = await collect(client.stream(requests(3)));
    expect(items.map((item) => [item.id, item.ok ? 'ok' : item.error.code])).toEqual([
      ['1', 'ok'],
      ['2', 'QUEUE_FULL'],
      ['3', 'ok'],
    ]);
  });

  it('rebuilds the code that our hosts name, and guesses it from the text of others', async () => {
    const { client } = await pair((request) =>
      request.id === '1'
        ? streamError('too late', request.id, 'DEADLINE_EXCEEDED')
        : streamError("Request for unknown model: 'm' is not found", request.id),
    );
    const items = await collect(client.stream(requests(2)));
    expect(items.map((item) => [item.id, item.ok ? 'ok' : item.error.code])).toEqual([
      ['1', 'DEADLINE_EXCEEDED'],
      ['2', 'MODEL_NOT_FOUND'],
    ]);
  });

  it('never has more than windowMax requests on their way, and asks the source only when there is room', async () => {
    let onWay = 0;
    let most = 0;
    let asked = 0;
    const held: (() => void)[] = [];
    const { client } = await pair(async (request) => {
      onWay += 1;
      most = Math.max(most, onWay);
      // The third arrival lets the earlier ones go: three are needed at once for the stream to move.
      if (onWay < 3 && Number(request.id) <= 12) await new Promise<void>((resolve) => held.push(resolve));
      onWay -= 1;
      for (const release of held.splice(0)) release();
      return streamEcho(request);
    });
    function* counted(): Generator<StreamRequest> {
      for (const request of requests(15)) {
        asked += 1;
        yield request;
      }
    }
    let answered = 0;
    for await (const item of client.stream(counted(), { windowMax: 3 } satisfies StreamOptions)) {
      expect(item.ok).toBe(true);
      answered += 1;
      expect(asked).toBeLessThanOrEqual(answered + 4 + 16);
    }
    expect(answered).toBe(15);
    expect(most).toBe(3);
  });

  it('holds the server back when nobody reads', async () => {
    const large = new Uint8Array(1024 * 1024);
    let answered = 0;
    const { client } = await pair((request) => {
      answered += 1;
      return streamEcho(request);
    });
    const stream = client.openStream({ windowMax: 1000 });
    const iterator = stream[Symbol.asyncIterator]();
    const first = iterator.next();
    for (let index = 0; index < 8; index += 1) await stream.send({ model: 'm', inputs: { x: large } });
    expect((await first).done).toBe(false);
    stream.end();
    let read = 1;
    for (let item = await iterator.next(); item.done !== true; item = await iterator.next()) read += 1;
    expect(read).toBe(8);
    expect(answered).toBe(8);
  });

  it('ends with one typed error when the connection ends, requests on their way included', async () => {
    const { client } = await pair((request) =>
      request.id === '3' ? new StatusError('UNAVAILABLE', 'going down') : streamEcho(request),
    );
    const seen: string[] = [];
    const ending = (async () => {
      for await (const item of client.stream(requests(10), { windowMax: 1 })) seen.push(item.id);
    })();
    await expect(ending).rejects.toMatchObject({ code: 'UNAVAILABLE', message: 'going down' });
    expect(seen).toEqual(['1', '2']);
    expect(client.statistics.inFlight).toBe(0);
  });

  it('stops when its caller aborts', async () => {
    const { client } = await pair(() => new Promise(() => {}));
    const controller = new AbortController();
    const ending = collect(client.stream(requests(2), { signal: controller.signal }));
    controller.abort();
    await expect(ending).rejects.toMatchObject({ code: 'CANCELLED' });
  });

  it('is cancelled by leaving the loop early', async () => {
    const { client } = await pair(streamEcho);
    for await (const item of client.stream(requests(1000), { windowMax: 4 })) {
      expect(item.ok).toBe(true);
      break;
    }
    expect(() => client.openStream({ windowMax: 0 })).toThrow('windowMax must be a whole number from 1 to 100000');
  });

  it("passes on what the source throws, and nothing of the stream's own", async () => {
    const { client } = await pair(streamEcho);
    function* broken(): Generator<StreamRequest> {
      yield* requests(2);
      throw new Error('the source is broken');
    }
    await expect(collect(client.stream(broken()))).rejects.toThrow('the source is broken');
  });
});
