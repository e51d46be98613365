import { emulateExecutor } from '#adapters/emulated/emulated-executor.js';
import { NodeClock } from '#adapters/node/clock.js';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import { startThreadExecutor } from '#adapters/piscina/thread-executor.js';
import { startRemoteExecutor } from '#adapters/remote/remote-executor.js';
import { describeExecutor } from './executor.js';
import { startOipServer } from './oip-server.js';

describeExecutor(
  'onnxruntime-node in a thread',
  async () => ({ executor: await startThreadExecutor({ provider: 'cpu' }) }),
  {
    isolation: 'thread',
  },
);
describeExecutor(
  'onnxruntime-node in a process',
  async () => ({ executor: await startProcessExecutor({ provider: 'cpu' }) }),
  { isolation: 'process' },
);
describeExecutor(
  'onnxruntime-web in a process',
  async () => ({ executor: await startProcessExecutor({ provider: 'wasm' }) }),
  { isolation: 'process' },
);
describeExecutor(
  'emulated over a process',
  async () => ({
    executor: emulateExecutor({
      inner: await startProcessExecutor({ provider: 'cpu' }),
      profile: { key: 'test-gpu', memoryBytes: 2 ** 30, bandwidthBytesPerSecond: 3e11, flopsPerSecond: 1e14 },
      clock: new NodeClock(),
      timeScale: 1,
    }),
  }),
  { isolation: 'process', emulated: true },
);
describeExecutor(
  'another inference server',
  async () => {
    const server = await startOipServer();
    return {
      executor: await startRemoteExecutor({ endpoint: `127.0.0.1:${server.port}`, token: '', tls: false }),
      publish: (name, path) => {
        server.publish(name, path);
        return Promise.resolve();
      },
      stop: () => server.stop(),
    };
  },
  { isolation: 'remote', loadsArtifacts: false },
);
