// Type-aware lint. Layout, layers and cycles are dependency-cruiser's; dead code is knip's; formatting is prettier's.
import js from '@eslint/js';
import tseslint from 'typescript-eslint';

const pureLayers = [
  'src/core/**',
  'src/ports/**',
  'src/runtime/**',
  'actors/**',
  'policies/placement/**',
  'policies/batching/**',
  'policies/residency/**',
];

export default tseslint.config(
  { ignores: ['dist/**', 'node_modules/**', 'src/gen/**', 'coverage/**', 'types/**', '**/*.cjs'] },
  js.configs.recommended,
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'separate-type-imports' }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      '@typescript-eslint/no-non-null-assertion': 'error',
      '@typescript-eslint/no-unnecessary-condition': [
        'error',
        { allowConstantLoopConditions: 'only-allowed-literals' },
      ],
      // Bounded, measured indexing in kernels and codecs reads better with a plain loop.
      '@typescript-eslint/prefer-for-of': 'off',
      eqeqeq: 'error',
      'no-console': 'error',
    },
  },
  {
    files: pureLayers,
    rules: {
      'no-restricted-globals': [
        'error',
        { name: 'Date', message: 'Time is an argument: use the Clock port.' },
        { name: 'performance', message: 'Time is an argument: use the Clock port.' },
        { name: 'setTimeout', message: 'Time is an argument: use the Clock port.' },
        { name: 'setInterval', message: 'Time is an argument: use the Clock port.' },
        { name: 'setImmediate', message: 'Time is an argument: use the Clock port.' },
        { name: 'queueMicrotask', message: 'Time is an argument: use the Clock port.' },
        { name: 'process', message: 'Pure layers do not know the process.' },
        { name: 'Buffer', message: 'Use Uint8Array.' },
      ],
      'no-restricted-properties': [
        'error',
        { object: 'Math', property: 'random', message: 'Chance is an argument: use the Random port.' },
      ],
    },
  },
  {
    files: ['**/*.mjs'],
    extends: [tseslint.configs.disableTypeChecked],
    languageOptions: {
      globals: { process: 'readonly', console: 'readonly', URL: 'readonly', setTimeout: 'readonly' },
    },
  },
  {
    files: ['scripts/**', 'bin/**', 'src/cli/**', 'src/main.ts', 'bench/**', 'examples/**'],
    rules: { 'no-console': 'off' },
  },
  {
    files: ['test/**'],
    rules: { '@typescript-eslint/no-non-null-assertion': 'off', '@typescript-eslint/unbound-method': 'off' },
  },
);
