/** A small trained language model and its vocabulary: the text it must continue, token by token. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Tensor } from '#core/tensor.js';
import type { GenerationCase } from './cases.js';

interface Expected {
  readonly prompt_ids: readonly number[];
  readonly expected_text: string;
  readonly 'token_ids_by_onnxruntime_1.30': readonly number[];
  readonly config: {
    readonly dim: number;
    readonly n_layers: number;
    readonly n_heads: number;
    readonly n_kv_heads: number;
  };
}

export function storiesCases(folder: string): readonly GenerationCase[] {
  const expected = JSON.parse(readFileSync(join(folder, 'expected.json'), 'utf8')) as Expected;
  const { n_layers: layers, n_kv_heads: heads, dim, n_heads: allHeads } = expected.config;
  const vocabulary = readVocabulary(readFileSync(join(folder, 'tok512.bin')));
  const common = {
    kind: 'generation' as const,
    tolerance: { absolute: 0, relative: 0 },
    heavy: true,
    promptTokens: expected.prompt_ids.length,
    tokens: expected['token_ids_by_onnxruntime_1.30'],
    text: expected.expected_text,
    decode: (tokens: readonly number[]) => decodeTokens(vocabulary, tokens),
    logits: 'logits',
  };
  return [
    {
      ...common,
      // Each request computes all tokens anew: a third of the text says as much.
      tokens: common.tokens.slice(0, 70),
      name: 'stories260K-no-past',
      model: 'stories260K-no-past',
      modelPath: join(folder, 'model_no_past.onnx'),
      inputs: (tokens) => [tokenTensor(tokens)],
    },
    {
      ...common,
      name: 'stories260K-with-past',
      model: 'stories260K-with-past',
      modelPath: join(folder, 'model_with_past.onnx'),
      inputs: (tokens, before) => [
        tokenTensor(before.size === 0 ? tokens : tokens.slice(-1)),
        ...pastTensors(before, { layers, heads, width: dim / allHeads }),
      ],
    },
  ];
}

/** What was computed before goes back in; the first request has a past of no tokens: tensors without a single byte. */
function pastTensors(
  before: ReadonlyMap<string, Tensor>,
  { layers, heads, width }: { layers: number; heads: number; width: number },
): Tensor[] {
  return Array.from({ length: layers }, (_, layer) =>
    ['key', 'value'].map((part): Tensor => {
      const name = `past_key_values.${layer}.${part}`;
      const present = before.get(`present.${layer}.${part}`);
      if (present !== undefined) return { ...present, name };
      return { name, datatype: 'FP32', shape: [1, heads, 0, width], data: new Uint8Array(0) };
    }),
  ).flat();
}

function tokenTensor(tokens: readonly number[]): Tensor {
  const data = new Uint8Array(BigInt64Array.from(tokens, BigInt).buffer);
  return { name: 'input_ids', datatype: 'INT64', shape: [1, tokens.length], data };
}

/** llama2.c's file: the longest length, then for each token a score, a length and the bytes. */
function readVocabulary(file: Uint8Array): readonly Uint8Array[] {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const vocabulary: Uint8Array[] = [];
  for (let offset = 4; offset < file.byteLength;) {
    const length = view.getInt32(offset + 4, true);
    vocabulary.push(file.subarray(offset + 8, offset + 8 + length));
    offset += 8 + length;
  }
  return vocabulary;
}

function decodeTokens(vocabulary: readonly Uint8Array[], tokens: readonly number[]): string {
  const beginning = 1;
  const bytes: number[] = [];
  for (const [index, token] of tokens.entries()) {
    if (token === beginning) continue;
    const text = Buffer.from(vocabulary[token] ?? []).toString('utf8');
    const byte = /^<0x([0-9A-F]{2})>$/.exec(text)?.[1];
    if (byte !== undefined) bytes.push(Number.parseInt(byte, 16));
    // The first word's leading space belongs to the tokenizer, not to the text.
    else bytes.push(...Buffer.from(tokens[index - 1] === beginning && text.startsWith(' ') ? text.slice(1) : text));
  }
  return Buffer.from(bytes).toString('utf8');
}
