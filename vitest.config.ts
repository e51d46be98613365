import { defineConfig } from 'vitest/config';

export default defineConfig({
  resolve: { conditions: ['intarsia-source', 'node', 'import', 'default'] },
  ssr: { resolve: { conditions: ['intarsia-source', 'node', 'import', 'default'] } },
  test: {
    include: ['test/**/*.test.ts'],
    // Worker threads and executor processes run built output: scripts/test.mjs builds first.
    globalSetup: ['test/setup/built-output.ts'],
    pool: 'forks',
    testTimeout: 30_000,
    hookTimeout: 60_000,
    dangerouslyIgnoreUnhandledErrors: false,
  },
});
