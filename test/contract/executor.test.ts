import { startProcessExecutor } from '#adapters/process/process-executor.js';
import { startThreadExecutor } from '#adapters/piscina/thread-executor.js';
import { describeExecutor } from './executor.js';

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
