/** ModelInfer over a real socket: answers, receipts, every refusal, deadlines, cancellation, retries. */
import { connect } from 'node:http2';
import { connect as connectTcp, createServer, type AddressInfo } from 'node:net';
import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { intarsiaError } from '#core/errors.js';
import { encodeBytesElements } from '#core/tensor.js';
import { silentLog } from '#ports/log.js';
import { startGrpcServer, type RunningGrpcServer } from '#adapters/grpc/server.js';
import * as gen from '#gen/inference.js';
import {
  boolParameter,
  failureOf,
  floats,
  identityRequest,
  int64Parameter,
  stringParameter,
  TestClient,
  valueOf,
} from './grpc-client.js';
import { PretendHost } from './pretend-host.js';

const Input = gen.ModelInferRequest_InferInputTensor;
let host: PretendHost;
let server: RunningGrpcServer;
let client: TestClient;

beforeEach(async () => {
  host = new PretendHost({ broken: { sick: 'model.onnx is corrupt' } });
  server = await startGrpcServer({ ...host.serverOptions(), log: silentLog });
  client = new TestClient(server.port);
});
afterEach(async () => {
  host.devices.cpu.release();
  host.devices.wasm.release();
  client.close();
  await server.stop(1000);
});

describe('answers', () => {
  it('a raw request is answered raw, with version, id and tensors', async () => {
    const answer = await client.infer({ ...identityRequest([1, 2, 3, 4, 5, 6, 7, 8]), id: 'abc' });
    expect(answer).toMatchObject({ modelName: 'identity', modelVersion: '1', id: 'abc' });
    expect(answer.outputs).toMatchObject([{ name: 'x', datatype: 'FP32', shape: [2n, 4n] }]);
    expect(answer.outputs[0]?.contents).toBeUndefined();
    expect([...answer.rawOutputContents[0]!]).toEqual([...floats(1, 2, 3, 4, 5, 6, 7, 8)]);
    expect(host.devices.cpu.seen[0]).toMatchObject({ items: 2, bytes: 32, batchKey: '', outputs: [] });
  });

  it.skipIf(!process.versions.node.startsWith('20.'))(
    'a short answer and its status leave in one write (Node 20)',
    async () => {
      // Between client and host, to see in which pieces the host writes.
      const pieces: Buffer[] = [];
      const between = createServer((near) => {
        const far = connectTcp(server.port, '127.0.0.1');
        far.on('data', (piece) => pieces.push(piece));
        near.pipe(far).pipe(near);
      });
      await new Promise<void>((resolve) => between.listen(0, '127.0.0.1', resolve));
      const near = new TestClient((between.address() as AddressInfo).port);
      await near.infer(identityRequest([1, 2, 3, 4]));
      pieces.length = 0;
      const answer = await near.infer(identityRequest([1, 2, 3, 4]));
      expect([...answer.rawOutputContents[0]!]).toEqual([...floats(1, 2, 3, 4)]);
      expect(pieces).toHaveLength(1);
      near.close();
      between.close();
    },
  );

  it('a typed request is answered typed', async () => {
    const contents = gen.InferTensorContents.create({ fp32Contents: [1, 2, 3, 4] });
    const inputs = [Input.create({ name: 'x', datatype: 'FP32', shape: [1n, 4n], contents })];
    const answer = await client.infer({ modelName: 'identity', inputs });
    expect(answer.rawOutputContents).toEqual([]);
    expect(answer.outputs[0]?.contents?.fp32Contents).toEqual([1, 2, 3, 4]);
  });

  it('NaN and infinities pass through', async () => {
    const answer = await client.infer(identityRequest([NaN, Infinity, -Infinity, -0]));
    expect([...answer.rawOutputContents[0]!]).toEqual([...floats(NaN, Infinity, -Infinity, -0)]);
  });

  it('strings travel raw and typed', async () => {
    const elements = ['a', '', 'żółw'].map((text) => new TextEncoder().encode(text));
    const raw = encodeBytesElements(elements);
    const inputs = [Input.create({ name: 't', datatype: 'BYTES', shape: [3n] })];
    const answer = await client.infer({ modelName: 'texts', inputs, rawInputContents: [raw] });
    expect([...answer.rawOutputContents[0]!]).toEqual([...raw]);
    const contents = gen.InferTensorContents.create({ bytesContents: elements });
    const typed = await client.infer({ modelName: 'texts', inputs: [{ ...inputs[0]!, contents }] });
    expect(typed.outputs[0]?.contents?.bytesContents.map((bytes) => [...bytes])).toEqual(elements.map((b) => [...b]));
  });

  it('an answer carries a receipt', async () => {
    const { parameters } = await client.infer({
      ...identityRequest(),
      parameters: { intarsia_project: stringParameter('apollo'), intarsia_user: stringParameter('ada') },
    });
    const plain = Object.fromEntries(Object.entries(parameters).map(([key, value]) => [key, valueOf(value)]));
    expect(plain).toEqual({
      intarsia_device: 'cpu:0',
      intarsia_queue_us: 120n,
      intarsia_compute_us: 1000n,
      intarsia_link_us: 100n,
      intarsia_batch_items: 2n,
      intarsia_billed_units: 1n,
      intarsia_unit: 'items',
      intarsia_tenant: 'anonymous',
      intarsia_project: 'apollo',
      intarsia_user: 'ada',
      intarsia_energy_joules: '0.0500000',
      intarsia_energy_source: 'profile',
      intarsia_cost_usd: '5.00000e-7',
      intarsia_price_source: 'configured',
      intarsia_request: expect.any(BigInt) as bigint,
    });
    expect(host.finished).toMatchObject([
      { outcome: { ok: true }, request: { billing: { project: 'apollo', user: 'ada' } } },
    ]);
  });

  it('requested outputs are told to the device, and classification makes labels of them', async () => {
    const outputs = [
      gen.ModelInferRequest_InferRequestedOutputTensor.create({
        name: 'x',
        parameters: { classification: int64Parameter(2n) },
      }),
    ];
    const answer = await client.infer({ ...identityRequest([1, 9, 3, 9, 0.5, 0.25, 0, 7]), outputs });
    expect(answer.outputs).toMatchObject([{ name: 'x', datatype: 'BYTES', shape: [2n, 2n] }]);
    const expected = ['9.000000:1:dog', '9.000000:3:fish', '7.000000:3:fish', '0.500000:0:cat'];
    expect([...answer.rawOutputContents[0]!]).toEqual([
      ...encodeBytesElements(expected.map((text) => new TextEncoder().encode(text))),
    ]);
    expect(host.devices.cpu.seen[0]?.outputs).toEqual(['x']);
  });

  it("optional inputs may be left out, and shapes that vary keep requests out of each other's batches", async () => {
    const a = (columns: bigint) => Input.create({ name: 'a', datatype: 'INT32', shape: [1n, columns] });
    await client.infer({ modelName: 'pair', inputs: [a(3n)], rawInputContents: [new Uint8Array(12)] });
    await client.infer({ modelName: 'pair', inputs: [a(4n)], rawInputContents: [new Uint8Array(16)] });
    const b = Input.create({ name: 'b', datatype: 'INT32', shape: [1n, 2n] });
    // In another order than the model's.
    await client.infer({
      modelName: 'pair',
      inputs: [b, a(3n)],
      rawInputContents: [new Uint8Array(8), new Uint8Array(12)],
    });
    const [first, second, third] = host.devices.cpu.seen;
    expect(new Set([first?.batchKey, second?.batchKey, third?.batchKey]).size).toBe(3);
    expect(third?.inputs.map(({ name }) => name)).toEqual(['a', 'b']);
  });

  it('sequence, priority, timeout and our own parameters reach the device', async () => {
    await client.infer({
      modelName: 'stateful',
      inputs: [Input.create({ name: 'x', datatype: 'FP32', shape: [1n] })],
      rawInputContents: [floats(1)],
      parameters: {
        sequence_id: int64Parameter(42n),
        sequence_start: boolParameter(true),
        priority: int64Parameter(2n),
        timeout: int64Parameter(5000n),
        intarsia_slo_ms: int64Parameter(50n),
        intarsia_deadline_ms: int64Parameter(60_000n),
        something_of_the_models_own: stringParameter('ignored'),
      },
    });
    const [seen] = host.devices.cpu.seen;
    expect(seen).toMatchObject({
      sequence: { id: 42n, start: true, end: false },
      priority: 2,
      queueTimeoutUs: 5000,
      sloMs: 50,
    });
    expect(seen!.deadlineMs - seen!.arrivedMs).toBeCloseTo(60_000, 3);
  });

  it('requests of a sequence follow each other to the same device', async () => {
    const step = (id: bigint, start: boolean, end = false) =>
      client.infer({
        modelName: 'stateful',
        inputs: [Input.create({ name: 'x', datatype: 'FP32', shape: [1n] })],
        rawInputContents: [floats(1)],
        parameters: {
          sequence_id: int64Parameter(id),
          sequence_start: boolParameter(start),
          sequence_end: boolParameter(end),
        },
      });
    host.loads.setReady('here/cpu:0', false);
    await step(1n, true);
    host.loads.setReady('here/cpu:0', true);
    await step(1n, false);
    await step(2n, true);
    await step(1n, false, true);
    expect(host.devices.wasm.seen.map(({ sequence }) => sequence?.id)).toEqual([1n, 1n, 1n]);
    expect(host.devices.cpu.seen.map(({ sequence }) => sequence?.id)).toEqual([2n]);
  });

  it('a 4 MiB tensor goes through in both directions', async () => {
    const data = new Uint8Array(4 * 1024 * 1024).map((_, index) => index % 253);
    const inputs = [Input.create({ name: 'x', datatype: 'UINT8', shape: [BigInt(data.byteLength)] })];
    const answer = await client.infer({ modelName: 'blob', inputs, rawInputContents: [data] });
    expect(Buffer.compare(answer.rawOutputContents[0]!, data)).toBe(0);
  });
});

describe('refusals', () => {
  const one = (
    fields: Partial<gen.ModelInferRequest_InferInputTensor>,
    data: Uint8Array = floats(1, 2, 3, 4),
  ): Partial<gen.ModelInferRequest> => ({
    modelName: 'identity',
    inputs: [Input.create({ name: 'x', datatype: 'FP32', shape: [1n, 4n], ...fields })],
    rawInputContents: [data],
  });

  const cases: readonly [what: string, request: Partial<gen.ModelInferRequest>, code: status, message: string][] = [
    [
      'an unknown model',
      { ...identityRequest(), modelName: 'nobody' },
      status.NOT_FOUND,
      "Request for unknown model: 'nobody' is not found",
    ],
    [
      'an unknown version',
      { ...identityRequest(), modelVersion: '7' },
      status.NOT_FOUND,
      "Request for unknown model: 'identity' version 7 is not found",
    ],
    [
      'a version that is no number',
      { ...identityRequest(), modelVersion: 'x' },
      status.NOT_FOUND,
      'version x is not found',
    ],
    [
      'a model that failed to load',
      { ...identityRequest(), modelName: 'sick' },
      status.UNAVAILABLE,
      'model.onnx is corrupt',
    ],
    [
      'an unknown input',
      one({ name: 'y' }),
      status.INVALID_ARGUMENT,
      "unexpected inference input 'y' for model 'identity'",
    ],
    [
      'an input given twice',
      {
        ...one({}),
        inputs: [one({}).inputs![0]!, one({}).inputs![0]!],
        rawInputContents: [floats(1, 2, 3, 4), floats(1, 2, 3, 4)],
      },
      status.INVALID_ARGUMENT,
      "input 'x' already exists in request",
    ],
    [
      'a missing input',
      { modelName: 'identity' },
      status.INVALID_ARGUMENT,
      "expected 1 inputs but got 0 inputs for model 'identity'. Got input(s) [], but missing required input(s) ['x']. Please provide all required input(s).",
    ],
    [
      'a wrong datatype',
      one({ datatype: 'INT32' }),
      status.INVALID_ARGUMENT,
      "inference input 'x' data-type is 'INT32', but model 'identity' expects 'FP32'",
    ],
    [
      'a datatype that does not exist',
      one({ datatype: 'FP33' }),
      status.INVALID_ARGUMENT,
      "inference input 'x' data-type is 'FP33'",
    ],
    [
      'a wrong shape',
      one({ shape: [1n, 5n] }, floats(1, 2, 3, 4, 5)),
      status.INVALID_ARGUMENT,
      "unexpected shape for input 'x' for model 'identity'. Expected [-1,4], got [1,5]",
    ],
    [
      'a shape without the batch dimension',
      one({ shape: [4n] }),
      status.INVALID_ARGUMENT,
      'takes a batch dimension in front',
    ],
    [
      'a negative size',
      { ...one({}), modelName: 'blob', inputs: [Input.create({ name: 'x', datatype: 'UINT8', shape: [-4n] })] },
      status.INVALID_ARGUMENT,
      'Expected [-1], got [-4]',
    ],
    [
      'too few bytes',
      one({}, floats(1, 2, 3)),
      status.INVALID_ARGUMENT,
      "input byte size mismatch for input 'x' for model 'identity'. Expected 16, got 12",
    ],
    ['too many bytes', one({}, floats(1, 2, 3, 4, 5)), status.INVALID_ARGUMENT, 'Expected 16, got 20'],
    [
      'a size whose bytes no message can hold',
      { ...one({}), modelName: 'blob', inputs: [Input.create({ name: 'x', datatype: 'UINT8', shape: [2n ** 52n] })] },
      status.INVALID_ARGUMENT,
      'byte size mismatch',
    ],
    [
      'an empty batch',
      one({ shape: [0n, 4n] }, floats()),
      status.INVALID_ARGUMENT,
      "inference request batch-size must be >= 1 for 'identity'; it is 0",
    ],
    [
      'a batch that is too large',
      one({ shape: [9n, 4n] }, new Uint8Array(9 * 16)),
      status.INVALID_ARGUMENT,
      "inference request batch-size must be <= 8 for 'identity'; it is 9",
    ],
    [
      'strings that are cut short',
      {
        modelName: 'texts',
        inputs: [Input.create({ name: 't', datatype: 'BYTES', shape: [1n] })],
        rawInputContents: [new Uint8Array([9, 0, 0, 0, 1])],
      },
      status.INVALID_ARGUMENT,
      'is cut short',
    ],
    [
      'another number of strings than the shape says',
      {
        modelName: 'texts',
        inputs: [Input.create({ name: 't', datatype: 'BYTES', shape: [2n] })],
        rawInputContents: [new Uint8Array([1, 0, 0, 0, 65])],
      },
      status.INVALID_ARGUMENT,
      'expected 2 string elements',
    ],
    [
      'an unknown output',
      { ...identityRequest(), outputs: [{ name: 'z', parameters: {} }] },
      status.INVALID_ARGUMENT,
      "unexpected inference output 'z' for model 'identity'",
    ],
    [
      'an output wanted twice',
      {
        ...identityRequest(),
        outputs: [
          { name: 'x', parameters: {} },
          { name: 'x', parameters: {} },
        ],
      },
      status.INVALID_ARGUMENT,
      "output 'x' already exists in request",
    ],
    [
      'classification that is no number',
      { ...identityRequest(), outputs: [{ name: 'x', parameters: { classification: stringParameter('2') } }] },
      status.INVALID_ARGUMENT,
      "'classification' of output 'x' must be a whole number",
    ],
    [
      'an input in shared memory',
      {
        modelName: 'identity',
        inputs: [
          Input.create({
            name: 'x',
            datatype: 'FP32',
            shape: [1n, 4n],
            parameters: { shared_memory_region: stringParameter('r') },
          }),
        ],
      },
      status.UNIMPLEMENTED,
      'shared memory',
    ],
    [
      'an output in shared memory',
      { ...identityRequest(), outputs: [{ name: 'x', parameters: { shared_memory_region: stringParameter('r') } }] },
      status.UNIMPLEMENTED,
      'shared memory',
    ],
    [
      "a parameter with Triton's prefix",
      { ...identityRequest(), parameters: { triton_whatever: boolParameter(true) } },
      status.INVALID_ARGUMENT,
      "parameter 'triton_whatever' is reserved and should not be set",
    ],
    [
      'a misspelt parameter of ours',
      { ...identityRequest(), parameters: { intarsia_dedline_ms: int64Parameter(1n) } },
      status.INVALID_ARGUMENT,
      "parameter 'intarsia_dedline_ms' is not known",
    ],
    [
      'a negative priority',
      { ...identityRequest(), parameters: { priority: int64Parameter(-1n) } },
      status.INVALID_ARGUMENT,
      "parameter 'priority' must be a whole number of 0 or more; it is int64 -1",
    ],
    [
      'a sequence flag that is no flag',
      { ...identityRequest(), parameters: { sequence_start: stringParameter('yes') } },
      status.INVALID_ARGUMENT,
      "parameter 'sequence_start' must be a boolean; it is a text",
    ],
    [
      'a deadline of nothing',
      { ...identityRequest(), parameters: { intarsia_deadline_ms: int64Parameter(0n) } },
      status.INVALID_ARGUMENT,
      'more than 0 milliseconds',
    ],
    [
      'a request without a sequence to a stateful model',
      {
        modelName: 'stateful',
        inputs: [Input.create({ name: 'x', datatype: 'FP32', shape: [1n] })],
        rawInputContents: [floats(1)],
      },
      status.INVALID_ARGUMENT,
      'must specify a non-zero or non-empty correlation ID',
    ],
  ];

  it.each(cases)('%s is refused with the right status and words', async (_what, request, code, message) => {
    const error = await failureOf(client.infer(request));
    expect(error.code).toBe(code);
    expect(error.details).toContain(message);
    expect(host.devices.cpu.seen).toEqual([]);
    expect(host.gateway.requestsInFlight).toBe(0);
    // The host lives.
    await expect(client.infer(identityRequest())).resolves.toBeDefined();
  });

  it('a request may enable the empty final response', async () => {
    const parameters = { triton_enable_empty_final_response: boolParameter(true) };
    await expect(client.infer({ ...identityRequest(), parameters })).resolves.toBeDefined();
  });

  it('truncated protobuf is INVALID_ARGUMENT on every method', async () => {
    for (const name of ['ModelInfer', 'ModelMetadata', 'RepositoryModelLoad']) {
      const error = await failureOf(
        client.raw(`/inference.GRPCInferenceService/${name}`, new Uint8Array([0x0a, 0x20, 0x41])),
      );
      expect(error.code).toBe(status.INVALID_ARGUMENT);
    }
  });

  it('an error names our code and details in the trailing metadata', async () => {
    const error = await failureOf(client.infer({ ...identityRequest(), modelName: 'nobody' }));
    expect(error.metadata.get('intarsia-code')).toEqual(['MODEL_NOT_FOUND']);
  });

  it('names that no header can hold do not break the error', async () => {
    const error = await failureOf(client.infer({ ...identityRequest(), modelName: `żółw 🐢 ${'x'.repeat(5000)}` }));
    expect(error.code).toBe(status.NOT_FOUND);
    expect(error.details).toContain('żółw 🐢');
    expect(error.details.length).toBeLessThan(1100);
  });

  it('a message larger than the limit is refused while the host lives', async () => {
    const small = await startGrpcServer({ ...host.serverOptions(), messageBytesMax: 10_000, log: silentLog });
    const other = new TestClient(small.port);
    const inputs = [Input.create({ name: 'x', datatype: 'UINT8', shape: [20_000n] })];
    const error = await failureOf(
      other.infer({ modelName: 'blob', inputs, rawInputContents: [new Uint8Array(20_000)] }),
    );
    expect(error.code).toBe(status.RESOURCE_EXHAUSTED);
    await expect(other.infer(identityRequest())).resolves.toBeDefined();
    other.close();
    await small.stop(100);
  });

  it('headers larger than the limit end the call, not the connection or the host', async () => {
    const error = await failureOf(client.infer(identityRequest(), { metadata: { 'x-large': 'y'.repeat(20_000) } }));
    expect([status.INTERNAL, status.RESOURCE_EXHAUSTED, status.UNAVAILABLE, status.CANCELLED]).toContain(error.code);
    await expect(client.infer(identityRequest())).resolves.toBeDefined();
  });

  it('more bytes in flight than allowed are RESOURCE_EXHAUSTED, and room is given back', async () => {
    const tight = new PretendHost({ bytesInFlightMax: 110 });
    const other = await startGrpcServer({ ...tight.serverOptions(), log: silentLog });
    const otherClient = new TestClient(other.port);
    tight.devices.cpu.behaviour = 'hold';
    const first = otherClient.infer(identityRequest());
    const second = otherClient.infer(identityRequest());
    await tight.devices.cpu.arrived(2);
    const error = await failureOf(otherClient.infer(identityRequest()));
    expect(error.code).toBe(status.RESOURCE_EXHAUSTED);
    expect(error.details).toMatch(/the host holds \d+ B of requests and may hold 110 B; this one has \d+ B/);
    tight.devices.cpu.behaviour = 'echo';
    tight.devices.cpu.release();
    await Promise.all([first, second]);
    await expect(otherClient.infer(identityRequest())).resolves.toBeDefined();
    expect(tight.gateway.bytesInFlight).toBe(0);
    otherClient.close();
    await other.stop(100);
  });
});

describe('deadlines, cancellation, retries', () => {
  it("the client's deadline reaches the device, and passes there too", async () => {
    host.devices.cpu.behaviour = 'hold';
    const error = await failureOf(client.infer(identityRequest(), { deadline: Date.now() + 150 }));
    expect(error.code).toBe(status.DEADLINE_EXCEEDED);
    const [seen] = host.devices.cpu.seen;
    expect(seen!.deadlineMs - seen!.arrivedMs).toBeLessThanOrEqual(151);
  });

  it('intarsia_deadline_ms ends a request and takes it out of the queue', async () => {
    host.devices.cpu.behaviour = 'hold';
    const error = await failureOf(
      client.infer({ ...identityRequest(), parameters: { intarsia_deadline_ms: int64Parameter(20n) } }),
    );
    expect(error.code).toBe(status.DEADLINE_EXCEEDED);
    expect(error.metadata.get('intarsia-code')).toEqual(['DEADLINE_EXCEEDED']);
    expect(host.devices.cpu.cancelled).toEqual([host.devices.cpu.seen[0]?.id]);
    expect(host.devices.cpu.held).toBe(0);
    expect(host.gateway.requestsInFlight).toBe(0);
  });

  it('a client that cancels takes its request out of the queue', async () => {
    host.devices.cpu.behaviour = 'hold';
    const abort = new AbortController();
    const call = failureOf(client.infer(identityRequest(), { signal: abort.signal }));
    await host.devices.cpu.arrived(1);
    expect(host.gateway.requestsInFlight).toBe(1);
    const idle = new Promise<void>((resolve) => host.gateway.whenIdle(resolve));
    abort.abort();
    expect((await call).code).toBe(status.CANCELLED);
    await idle;
    expect(host.devices.cpu.cancelled).toHaveLength(1);
    expect(host.finished.map(({ outcome }) => outcome.ok || outcome.error.code)).toEqual(['CANCELLED']);
  });

  it('a client that is gone takes its requests with it', async () => {
    host.devices.cpu.behaviour = 'hold';
    const session = connect(`http://127.0.0.1:${server.port}`);
    session.on('error', () => {});
    const stream = session.request({
      ':method': 'POST',
      ':path': '/inference.GRPCInferenceService/ModelInfer',
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    stream.on('error', () => {});
    const message = gen.ModelInferRequest.toBinary(gen.ModelInferRequest.create(identityRequest()));
    stream.end(Buffer.concat([Buffer.from([0, 0, 0, 0, message.byteLength]), message]));
    await host.devices.cpu.arrived(1);
    const idle = new Promise<void>((resolve) => host.gateway.whenIdle(resolve));
    session.destroy();
    await idle;
    expect(host.devices.cpu.cancelled).toHaveLength(1);
  });

  it('a retryable failure is tried on another device', async () => {
    host.devices.cpu.behaviour = intarsiaError('EXECUTOR_LOST', 'the executor died');
    const answer = await client.infer(identityRequest([1, 2, 3, 4], 'replicated'));
    expect(valueOf(answer.parameters['intarsia_device'])).toBe('wasm:0');
    expect(valueOf(answer.parameters['intarsia_emulated'])).toBe(true);
    expect(host.devices.cpu.seen).toHaveLength(1);
  });

  it.each(['full', 'stopped'] as const)('a mailbox that is %s is passed over', async (behaviour) => {
    host.devices.cpu.behaviour = behaviour;
    const answer = await client.infer(identityRequest([1, 2, 3, 4], 'replicated'));
    expect(valueOf(answer.parameters['intarsia_device'])).toBe('wasm:0');
    const error = await failureOf(client.infer(identityRequest()));
    expect(error.code).toBe(status.UNAVAILABLE);
    expect(error.metadata.get('intarsia-code')).toEqual([behaviour === 'full' ? 'QUEUE_FULL' : 'DEVICE_UNAVAILABLE']);
  });

  it('a failure that no retry helps is told at once', async () => {
    host.devices.cpu.behaviour = intarsiaError('EXECUTION_FAILED', 'the provider says no');
    const error = await failureOf(client.infer(identityRequest([1, 2, 3, 4], 'replicated')));
    expect(error.code).toBe(status.INTERNAL);
    expect(error.details).toBe('the provider says no');
    expect(host.devices.wasm.seen).toEqual([]);
  });

  it('when every device fails the last error is told', async () => {
    host.devices.cpu.behaviour = intarsiaError('EXECUTOR_LOST', 'the first died');
    host.devices.wasm.behaviour = intarsiaError('QUEUE_FULL', 'Exceeds maximum queue size');
    const error = await failureOf(client.infer(identityRequest([1, 2, 3, 4], 'replicated')));
    expect(error.details).toBe('Exceeds maximum queue size');
  });

  it('a sequence under way is never continued elsewhere', async () => {
    const step = (start: boolean) =>
      client.infer({
        modelName: 'stateful',
        inputs: [Input.create({ name: 'x', datatype: 'FP32', shape: [1n] })],
        rawInputContents: [floats(1)],
        parameters: { sequence_id: int64Parameter(5n), sequence_start: boolParameter(start) },
      });
    await step(true);
    host.devices.cpu.behaviour = intarsiaError('EXECUTOR_LOST', 'the executor died');
    expect((await failureOf(step(false))).details).toBe('the executor died');
    expect(host.devices.wasm.seen).toEqual([]);
  });

  it('a host that does not know its models yet refuses retryably instead of calling them unknown', async () => {
    host.isOpen = false;
    expect((await failureOf(client.infer(identityRequest()))).code).toBe(status.UNAVAILABLE);
    expect((await failureOf(client.infer({ modelName: 'nobody' }))).code).toBe(status.UNAVAILABLE);
    host.isOpen = true;
    await expect(client.infer(identityRequest())).resolves.toBeDefined();
  });

  it('a host that stops refuses new requests and finishes those under way', async () => {
    host.devices.cpu.behaviour = 'hold';
    const under = client.infer(identityRequest());
    await host.devices.cpu.arrived(1);
    host.gateway.stopAccepting();
    expect((await failureOf(client.infer(identityRequest()))).code).toBe(status.UNAVAILABLE);
    const stopped = server.stop(5000);
    host.devices.cpu.release();
    await expect(under).resolves.toBeDefined();
    await stopped;
  });
});
