import { defineConfig } from 'vitest/config';

export default defineConfig({
  // Not 'import': it would also steer require(), and CommonJS packages such as TensorFlow.js would get ES modules.
  resolve: { conditions: ['intarsia-source', 'node', 'default'] },
  ssr: { resolve: { conditions: ['intarsia-source', 'node', 'default'] } },
  test: {
    include: ['test/**/*.test.ts'],
    // Worker threads and executor processes run built output: scripts/test.mjs builds first.
    globalSetup: ['test/setup/built-output.ts'],
    pool: 'forks',
    // One worker for each core. The default leaves one core out, which on two cores means one file after the other, and many
    // tests only wait for processes that they started.
    maxWorkers: '100%',
    // Generous: on two busy cores a seeded simulation or a start of the program may take its time. Nothing asserts speed.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    dangerouslyIgnoreUnhandledErrors: false,
  },
});
