/** ModelStreamInfer: answers as they are done, errors inside the stream, dialects, bounds, and streams that break off. */
import { status, type ServiceError } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { intarsiaError } from '#core/errors.js';
import { silentLog } from '#ports/log.js';
import { startGrpcServer, type RunningGrpcServer } from '#adapters/grpc/server.js';
import * as gen from '#gen/inference.js';
import { identityRequest, TestClient, valueOf } from './grpc-client.js';
import { PretendHost } from './pretend-host.js';

let host: PretendHost;
let server: RunningGrpcServer;
let client: TestClient;

beforeEach(async () => {
  host = new PretendHost();
  server = await startGrpcServer({ ...host.serverOptions(), log: silentLog, requestsPerStreamMax: 4 });
  client = new TestClient(server.port);
});
afterEach(async () => {
  client.close();
  await server.stop(1000);
});

const bytesOf = (message: Partial<gen.ModelInferRequest>): Uint8Array =>
  gen.ModelInferRequest.toBinary(gen.ModelInferRequest.create(message));

/** Reads a stream: messages one by one, then how it ended. */
class Reader {
  readonly #messages: Uint8Array[] = [];
  #wake: () => void = () => {};
  ended: 'open' | 'ok' | ServiceError = 'open';

  constructor(stream: ReturnType<TestClient['stream']>) {
    stream.on('data', (bytes: Uint8Array) => {
      this.#messages.push(bytes);
      this.#wake();
    });
    stream.on('end', () => {
      if (this.ended === 'open') this.ended = 'ok';
      this.#wake();
    });
    stream.on('error', (error: ServiceError) => {
      this.ended = error;
      this.#wake();
    });
  }

  async bytes(): Promise<Uint8Array> {
    for (;;) {
      const [first] = this.#messages;
      if (first !== undefined) {
        this.#messages.shift();
        return first;
      }
      if (this.ended !== 'open') throw new Error('the stream has ended', { cause: this.ended });
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  async message(): Promise<gen.ModelStreamInferResponse> {
    return gen.ModelStreamInferResponse.fromBinary(await this.bytes());
  }

  async end(): Promise<'ok' | ServiceError> {
    while (this.ended === 'open') await new Promise<void>((resolve) => (this.#wake = resolve));
    return this.ended;
  }
}

describe('streams of requests', () => {
  it('many requests are answered on one stream, which ends when both sides are done', async () => {
    const stream = client.stream();
    const reader = new Reader(stream);
    for (let index = 0; index < 50; index += 1)
      stream.write(bytesOf({ ...identityRequest([index, 0, 0, 0]), id: String(index) }));
    stream.end();
    const ids = new Set<string>();
    for (let index = 0; index < 50; index += 1) {
      const { errorMessage, inferResponse } = await reader.message();
      expect(errorMessage).toBe('');
      ids.add(inferResponse!.id);
      expect(valueOf(inferResponse!.parameters['triton_final_response'])).toBe(true);
      expect(Buffer.from(inferResponse!.rawOutputContents[0]!).readFloatLE(0)).toBe(Number(inferResponse!.id));
    }
    expect(ids.size).toBe(50);
    expect(await reader.end()).toBe('ok');
  });

  it('an answer that is ready does not wait for one that is not', async () => {
    const stream = client.stream();
    const reader = new Reader(stream);
    host.devices.cpu.behaviour = 'hold';
    stream.write(bytesOf({ ...identityRequest(), id: 'slow' }));
    await host.devices.cpu.arrived(1);
    host.devices.cpu.behaviour = 'echo';
    stream.write(bytesOf({ ...identityRequest(), id: 'quick' }));
    expect((await reader.message()).inferResponse?.id).toBe('quick');
    host.devices.cpu.release();
    expect((await reader.message()).inferResponse?.id).toBe('slow');
    stream.end();
    expect(await reader.end()).toBe('ok');
  });

  it('errors travel in error_message with the id, and the stream stays open', async () => {
    const stream = client.stream();
    const reader = new Reader(stream);
    stream.write(bytesOf({ ...identityRequest(), modelName: 'nobody', id: '1' }));
    const first = await reader.message();
    expect(first.errorMessage).toBe("Request for unknown model: 'nobody' is not found");
    expect(first.inferResponse?.id).toBe('1');
    stream.write(new Uint8Array([0x0a, 0x20, 0x41]));
    expect((await reader.message()).errorMessage).toContain('malformed');
    host.devices.cpu.behaviour = intarsiaError('EXECUTION_FAILED', 'the provider says no');
    stream.write(bytesOf(identityRequest()));
    expect((await reader.message()).errorMessage).toBe('the provider says no');
    host.devices.cpu.behaviour = 'echo';
    stream.write(bytesOf({ ...identityRequest(), id: '2' }));
    expect((await reader.message()).inferResponse?.id).toBe('2');
    stream.end();
    expect(await reader.end()).toBe('ok');
  });

  it('with triton_grpc_error an error ends the stream with a status', async () => {
    const stream = client.stream({ triton_grpc_error: 'true' });
    const reader = new Reader(stream);
    stream.write(bytesOf({ ...identityRequest(), modelName: 'nobody' }));
    const ended = await reader.end();
    expect(ended).toMatchObject({
      code: status.NOT_FOUND,
      details: "Request for unknown model: 'nobody' is not found",
    });
    expect((await client.infer(identityRequest())).outputs).toHaveLength(1);
  });

  it("MLServer's shape is sent to a client that asks for it", async () => {
    const stream = client.stream({ 'intarsia-stream-dialect': 'mlserver' });
    const reader = new Reader(stream);
    stream.write(bytesOf({ ...identityRequest(), id: 'm' }));
    expect(gen.ModelInferResponse.fromBinary(await reader.bytes())).toMatchObject({ id: 'm', modelName: 'identity' });
    stream.end();
    expect(await reader.end()).toBe('ok');
  });

  it('a stream holds at most its bound of requests, and reads on when one is answered', async () => {
    const stream = client.stream();
    const reader = new Reader(stream);
    host.devices.cpu.behaviour = 'hold';
    for (let index = 0; index < 40; index += 1) stream.write(bytesOf({ ...identityRequest(), id: String(index) }));
    stream.end();
    await host.devices.cpu.arrived(4);
    // A round trip on another call: whatever the stream would read has been read by then.
    await client.call('ServerLive', gen.ServerLiveRequest, gen.ServerLiveResponse, {});
    expect(host.devices.cpu.held).toBeLessThanOrEqual(5);
    let answered = 0;
    while (answered < 40) {
      host.devices.cpu.release();
      await reader.message();
      answered += 1;
      expect(host.devices.cpu.held).toBeLessThanOrEqual(5);
    }
    expect(await reader.end()).toBe('ok');
  });

  it('a client that breaks off takes its requests with it', async () => {
    const stream = client.stream();
    const reader = new Reader(stream);
    host.devices.cpu.behaviour = 'hold';
    stream.write(bytesOf(identityRequest()));
    stream.write(bytesOf(identityRequest()));
    await host.devices.cpu.arrived(2);
    const idle = new Promise<void>((resolve) => host.gateway.whenIdle(resolve));
    stream.cancel();
    await idle;
    expect(await reader.end()).toMatchObject({ code: status.CANCELLED });
    expect(host.devices.cpu.cancelled).toHaveLength(2);
  });
});
