/**
 * The bare grpc-js echo that ModelInfer is compared with: same method path, pass-through serializers, one prebuilt answer
 * of the size that the real server sends (`--reply-bytes`, default: the request itself). Prints `{"port":N}` when ready.
 */
import * as grpc from '@grpc/grpc-js';
import type { Http2Server } from 'node:http2';
import { parseArgs } from 'node:util';

const { values } = parseArgs({ options: { 'reply-bytes': { type: 'string', default: '0' } } });
const reply = Buffer.alloc(Number(values['reply-bytes']));
const passThrough = (buffer: Buffer): Buffer => buffer;

const method = (path: string, stream: boolean): grpc.MethodDefinition<Buffer, Buffer> => ({
  path,
  requestStream: stream,
  responseStream: stream,
  requestSerialize: passThrough,
  requestDeserialize: passThrough,
  responseSerialize: passThrough,
  responseDeserialize: passThrough,
});

const server = new grpc.Server({
  'grpc.max_receive_message_length': -1,
  'grpc.max_send_message_length': -1,
  'grpc-node.flow_control_window': 16 * 1024 * 1024,
});
server.addService(
  {
    ModelInfer: method('/inference.GRPCInferenceService/ModelInfer', false),
    ModelStreamInfer: method('/inference.GRPCInferenceService/ModelStreamInfer', true),
  },
  {
    ModelInfer: (call: grpc.ServerUnaryCall<Buffer, Buffer>, callback: grpc.sendUnaryData<Buffer>): void => {
      callback(null, reply.byteLength === 0 ? call.request : reply);
    },
    ModelStreamInfer: (call: grpc.ServerDuplexStream<Buffer, Buffer>): void => {
      call.on('data', (message: Buffer) => {
        if (!call.write(reply.byteLength === 0 ? message : reply)) {
          call.pause();
          call.once('drain', () => call.resume());
        }
      });
      call.on('end', () => call.end());
    },
  },
);
// Windows raised as on the product's own server, so that large messages are compared on equal terms.
const windowBytes = 16 * 1024 * 1024;
const http2Options = Reflect.get(server, 'commonServerOptions') as { settings?: object };
http2Options.settings = { ...http2Options.settings, initialWindowSize: windowBytes, maxFrameSize: 1024 * 1024 };

server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error !== null) throw error;
  const listeners = Reflect.get(server, 'http2Servers') as Map<Http2Server, unknown>;
  for (const listener of listeners.keys()) {
    listener.on('session', (session) => session.setLocalWindowSize(windowBytes));
  }
  process.stdout.write(`${JSON.stringify({ port })}\n`);
});
