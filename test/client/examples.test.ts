import { afterEach, describe, expect, it } from 'vitest';
import { classifyDigit } from '#examples/client/classify-digit.js';
import { connectToGrid, tryModel } from '#examples/client/several-hosts.js';
import { sumOverStream } from '#examples/client/sum-stream.js';
import { noParameters, type InferParameter } from '#core/inference-message.js';
import { decodeInferRequest, encodeInferResponse, encodeStreamInferResponse } from '#core/inference-wire.js';
import { encodeBytesElements } from '#core/tensor.js';
import { ModelMetadataResponse } from '#gen/inference.js';
import { echo, echoOf, startPretendServer, StatusError, streamError, type PretendServer } from './pretend-server.js';

const servers: PretendServer[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.stop();
});

async function serve(handlers: Parameters<typeof startPretendServer>[0]): Promise<string> {
  const server = await startPretendServer(handlers);
  servers.push(server);
  return server.endpoint;
}

const metadata = () =>
  ModelMetadataResponse.toBinary({
    name: 'm',
    versions: ['1'],
    platform: '',
    inputs: [{ name: 'x', datatype: 'INT32', shape: [3n] }],
    outputs: [],
  });

describe('the examples of the client', () => {
  it('classify a digit', async () => {
    const device = new Map<string, InferParameter>([['intarsia_device', { kind: 'string', value: 'cpu:0' }]]);
    const endpoint = await serve({
      unary: {
        ModelInfer: ({ bytes }) => {
          const request = decodeInferRequest(bytes);
          expect(request.inputs[0]).toMatchObject({ name: 'image', shape: [1, 1, 28, 28] });
          const data = encodeBytesElements([Buffer.from('0.75:7:seven')]);
          const output = { name: 'probabilities', datatype: 'BYTES', shape: [1, 1], parameters: noParameters, data };
          return encodeInferResponse({ ...echoOf(request, device), outputs: [output] }).toBytes();
        },
      },
    });
    expect(await classifyDigit(endpoint, new Float32Array(784))).toBe('seven with 0.75, on cpu:0');
  });

  it('sum over a stream', async () => {
    const endpoint = await serve({
      stream: (request) =>
        request.id === '3' ? streamError('no', request.id) : encodeStreamInferResponse(echoOf(request)).toBytes(),
    });
    expect(await sumOverStream(endpoint, [1, 2, 100, 4])).toEqual({ sum: 7, failed: ['3'] });
  });

  it('use several hosts and tell what came of it', async () => {
    const busy = await serve({
      unary: {
        ModelMetadata: metadata,
        ModelInfer: () => {
          throw new StatusError('UNAVAILABLE', 'Exceeds maximum queue size');
        },
      },
    });
    const free = await serve({ unary: { ModelMetadata: metadata, ModelInfer: echo } });
    const grid = connectToGrid([busy, free]);
    const alone = connectToGrid([busy]);
    try {
      expect(await tryModel(grid, 'm')).toBe('answered: 1 2 3');
      expect(await tryModel(grid, 'm', AbortSignal.abort())).toBe('taken back');
      expect(await tryModel(alone, 'm')).toBe('busy (QUEUE_FULL): try again later');
    } finally {
      grid.close();
      alone.close();
    }
  });

  it('bring nothing of the server along', async () => {
    const { cruise } = await import('dependency-cruiser');
    const { output } = await cruise(['src/client/index.ts'], {
      tsPreCompilationDeps: false,
      doNotFollow: { path: 'node_modules' },
      enhancedResolveOptions: {
        exportsFields: ['exports'],
        conditionNames: ['intarsia-source', 'import', 'require', 'node', 'default'],
      },
    });
    const modules = typeof output === 'string' ? [] : output.modules.map(({ source }) => source);
    expect(modules).toContain('src/adapters/grpc/client-channel.ts');
    const others = modules.filter(
      (path) =>
        !/^(src\/(client|core|gen|ports|adapters\/(grpc\/(client-channel|detached-)|node))|node_modules\/@(grpc|protobuf-ts)\/)/.test(
          path,
        ) && path.includes('/'),
    );
    expect(others).toEqual([]);
  });
});
