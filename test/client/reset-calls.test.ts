/** A server, or the connection to it, that resets calls: what their caller is told. */
import { createServer, constants } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { GrpcChannel, type CallFailure, type CallOutcome } from '#adapters/grpc/client-channel.js';
import { grpcStatus } from '#core/errors.js';

const options = { metadata: {}, deadlineWallMs: Infinity };

/** A channel to a server of Node's own. `/reset` is reset at once, everything else is never answered; `came` resolves with a call. */
async function channelTo(): Promise<{ readonly channel: GrpcChannel; readonly came: Promise<void> }> {
  const server = createServer();
  const came = new Promise<void>((resolve) => {
    server.on('stream', (stream, headers) => {
      stream.on('error', () => undefined);
      if (headers[':path'] === '/reset') stream.close(constants.NGHTTP2_CANCEL);
      resolve();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const target = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const channel = new GrpcChannel({ target, messageBytesMax: -1, windowBytes: 65_535, connectBackoffMsMax: 1_000 });
  onTestFinished(() => {
    channel.close();
    server.close();
  });
  return { channel, came };
}

describe('a call that is reset', () => {
  it('tells its caller that nobody answers, who may ask somebody else', async () => {
    const { channel } = await channelTo();
    const outcome = await new Promise<CallOutcome>((resolve) => {
      channel.call('/reset', new Uint8Array(1), options, resolve);
    });
    expect(outcome).toMatchObject({ ok: false, failure: { status: grpcStatus.UNAVAILABLE } });
    const failure = await new Promise<CallFailure | undefined>((end) => {
      channel.stream('/reset', options, { message: () => undefined, drained: () => undefined, end });
    });
    expect(failure?.status).toBe(grpcStatus.UNAVAILABLE);
  });

  it('was cancelled where its caller cancelled it', async () => {
    const { channel, came } = await channelTo();
    const ended = new Promise<CallOutcome>((resolve) => {
      const call = channel.call('/wait', new Uint8Array(1), options, resolve);
      void came.then(() => call.cancel());
    });
    expect(await ended).toMatchObject({ ok: false, failure: { status: grpcStatus.CANCELLED } });
    const failure = await new Promise<CallFailure | undefined>((end) => {
      channel.stream('/wait', options, { message: () => undefined, drained: () => undefined, end }).cancel();
    });
    expect(failure?.status).toBe(grpcStatus.CANCELLED);
  });
});
