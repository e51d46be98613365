import { readdirSync, readFileSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { InferenceSession } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { IntarsiaError } from '#core/errors.js';
import { checkExternalRanges, readModelFacts } from '#core/onnx/model-facts.js';
import { readModel } from '#core/onnx/model-reader.js';
import { WireWriter } from '#core/wire.js';
import {
  externalData,
  graph,
  identityModel,
  modelBytes,
  node,
  tensor,
  tensorType,
  value,
  type Write,
} from './onnx-bytes.js';

const shared = join(import.meta.dirname, '../../../shared/models');
const sharedMissing = !existsSync(shared);

function refusal(bytes: Uint8Array): IntarsiaError {
  try {
    readModelFacts(bytes);
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(IntarsiaError);
    return thrown as IntarsiaError;
  }
  throw new Error('the model was accepted');
}

describe('reading an ONNX model', () => {
  it('tells inputs, outputs, weights, operator sets and operators', () => {
    const body = graph({
      nodes: [node('Add', ['x', 'inner'], ['z'])],
      initializers: [tensor('inner', 1, [3])],
      outputs: [value('z', tensorType(1))],
    });
    const bytes = modelBytes({
      nodes: [
        node('MatMul', ['x', 'w'], ['h']),
        node('If', ['c'], ['y'], (writer) =>
          writer.message(5, (attribute) => attribute.string(1, 'then_branch').message(6, body).uint(20, 5)),
        ),
        node('FusedConv', ['h'], ['g'], (writer) => writer.string(7, 'com.microsoft')),
      ],
      initializers: [tensor('w', 10, [4, 8], (writer) => writer.bytes(9, new Uint8Array(64)))],
      inputs: [
        value('x', tensorType(1, ['batch', 4, undefined])),
        value('c', tensorType(9, [])),
        value('w', tensorType(10)),
      ],
      outputs: [value('y', tensorType(1, [0, -1])), value('h', tensorType(1))],
    });
    expect(readModelFacts(bytes)).toEqual({
      irVersion: 8,
      producer: '',
      opsets: new Map([['', 17]]),
      inputs: [
        {
          name: 'x',
          datatype: 'FP32',
          shape: [
            { size: -1, symbol: 'batch' },
            { size: 4, symbol: '' },
            { size: -1, symbol: '' },
          ],
        },
        { name: 'c', datatype: 'BOOL', shape: [] },
      ],
      outputs: [
        {
          name: 'y',
          datatype: 'FP32',
          shape: [
            { size: 0, symbol: '' },
            { size: -1, symbol: '' },
          ],
        },
        { name: 'h', datatype: 'FP32' },
      ],
      defaultedInputs: [{ name: 'w', datatype: 'FP16' }],
      weightBytes: 64 + 12,
      externalTensors: [],
      operators: new Map([
        ['MatMul', 1],
        ['If', 1],
        ['Add', 1],
        ['com.microsoft::FusedConv', 1],
      ]),
    });
  });

  it('reads packed and unpacked dimensions alike', () => {
    const packed = (writer: WireWriter): void => {
      writer.bytes(1, new WireWriter().varint(2).varint(300).finish()).uint(2, 1).string(8, 'w');
    };
    const facts = (initializer: Write) =>
      readModel(modelBytes({ initializers: [initializer], outputs: [value('w', tensorType(1))] })).graph
        .initializers[0];
    expect(facts(packed)?.dims).toEqual([2, 300]);
    expect(facts(tensor('w', 1, [2, 300]))?.dims).toEqual([2, 300]);
  });

  it('gives ranges from which the file can be put together again byte for byte', () => {
    const bytes = modelBytes({
      nodes: [node('Identity', ['x'], ['y']), node('Neg', ['y'], ['z'])],
      initializers: [tensor('w', 1, [1], (writer) => writer.bytes(9, new Uint8Array([1, 2, 3, 4])))],
      inputs: [value('x', tensorType(1, [1]))],
      outputs: [value('z', tensorType(1, [1]))],
    });
    const { graph: main, opsets } = readModel(bytes);
    const inner = new WireWriter();
    inner.raw(bytes.subarray(main.nodes[0]?.start, main.nodes[0]?.end));
    inner.raw(bytes.subarray(main.nodes[1]?.start, main.nodes[1]?.end));
    inner.string(2, 'graph');
    for (const part of [...main.initializers, ...main.inputs, ...main.outputs]) {
      inner.raw(bytes.subarray(part.start, part.end));
    }
    const outer = new WireWriter().uint(1, 8).embed(7, inner);
    for (const part of opsets) outer.raw(bytes.subarray(part.start, part.end));
    expect(outer.finish()).toEqual(bytes);
  });

  it('leaves the type of an output to the engine when the file does not say it', () => {
    const bytes = identityModel(tensorType(1, [2]), () => undefined);
    expect(readModelFacts(bytes).outputs).toEqual([{ name: 'y' }]);
  });

  it('knows where external data lies, in subgraphs and attributes too', () => {
    const elsewhere = externalData({ location: './weights/a.bin', offset: '4096', length: '24' });
    const bytes = modelBytes({
      nodes: [
        node('Constant', [], ['k'], (writer) =>
          writer.message(5, (attribute) =>
            attribute.string(1, 'value').message(5, tensor('k', 7, [2], externalData({ location: 'b.bin' }))),
          ),
        ),
      ],
      initializers: [tensor('w', 1, [2, 3], elsewhere)],
      outputs: [value('k', tensorType(7, [2]))],
    });
    const facts = readModelFacts(bytes);
    expect(facts.externalTensors).toEqual([
      { tensor: 'w', location: 'weights/a.bin', offset: 4096, length: 24 },
      { tensor: 'k', location: 'b.bin', offset: 0, length: 16 },
    ]);
    expect(facts.weightBytes).toBe(40);
    const sizes = new Map([
      ['weights/a.bin', 4120],
      ['b.bin', 16],
    ]);
    expect(() => checkExternalRanges(facts, sizes)).not.toThrow();
    expect(() => checkExternalRanges(facts, new Map([...sizes, ['weights/a.bin', 4119]]))).toThrow(
      'tensor "w" has its data in "weights/a.bin" from byte 4096 to 4120; the file has 4119 bytes',
    );
    expect(() => checkExternalRanges(facts, new Map([['b.bin', 16]]))).toThrow('"weights/a.bin", which is missing');
  });
});

describe('refusing an ONNX model that must not be loaded', () => {
  it.each([
    ['int4', 22, 'INT4'],
    ['uint4', 21, 'UINT4'],
    ['float8', 17, 'FLOAT8E4M3FN'],
    ['complex64', 14, 'COMPLEX64'],
    ['an unknown type', 99, 'data type 99'],
  ])('refuses an output of %s before an engine sees it', (_name, dataType, shown) => {
    const error = refusal(identityModel(tensorType(1, [2]), tensorType(dataType, [2])));
    expect(error.code).toBe('MODEL_INVALID');
    expect(error.message).toContain(`output "y" of the model has the element type ${shown}`);
  });

  it.each([
    ['a sequence', 4],
    ['a map', 5],
    ['an optional value', 9],
    ['a sparse tensor', 8],
    ['an opaque value', 7],
  ])('refuses %s as input or output', (shown, field) => {
    const type: Write = (writer) => writer.message(field, () => undefined);
    const asInput = refusal(identityModel(type, tensorType(1, [2])));
    expect(asInput.code).toBe('MODEL_INVALID');
    expect(asInput.message).toContain(`input "x" of the model is ${shown}`);
    expect(refusal(identityModel(tensorType(1, [2]), type)).message).toContain(`output "y" of the model is ${shown}`);
  });

  it.each([
    ['/etc/passwd', "a location is relative to the model's folder"],
    ['C:/weights.bin', "a location is relative to the model's folder"],
    ['../secret.bin', "a location stays inside the model's folder"],
    ['a/../../secret.bin', "a location stays inside the model's folder"],
    ['a\\..\\b', 'a location has no backslashes'],
    ['*/_ORT_MEM_ADDR_/*', 'a location names a file'],
    ['', 'a location is missing'],
    ['a//b', 'a location has no empty parts'],
    ['.', 'a location names a file'],
    ['a\0b', 'a location has no control characters'],
  ])('refuses external data at %j', (location, reason) => {
    const error = refusal(
      modelBytes({
        initializers: [tensor('w', 1, [2], externalData({ location }))],
        outputs: [value('w', tensorType(1))],
      }),
    );
    expect(error.code).toBe('MODEL_INVALID');
    expect(error.message).toContain(reason);
  });

  it.each([
    [{ location: 'w', offset: '-1' }, 'external offset "-1"'],
    [{ location: 'w', offset: '9'.repeat(16) }, 'external offset'],
    [{ location: 'w', length: '0x10' }, 'external length "0x10"'],
    [{ location: 'w', length: '9' }, 'takes 8 bytes; its external data has 9'],
  ])('refuses external data with %j', (pairs, reason) => {
    const error = refusal(
      modelBytes({
        initializers: [tensor('w', 1, [2], externalData(pairs))],
        outputs: [value('w', tensorType(1))],
      }),
    );
    expect(error.code).toBe('MODEL_INVALID');
    expect(error.message).toContain(reason);
  });

  it('refuses tensors whose bytes contradict their shape', () => {
    const withTensor = (write: Write): IntarsiaError =>
      refusal(modelBytes({ initializers: [write], outputs: [value('w', tensorType(1))] }));
    expect(withTensor(tensor('w', 1, [2], (writer) => writer.bytes(9, new Uint8Array(7)))).message).toBe(
      'tensor "w" is FLOAT [2] and takes 8 bytes; it has 7',
    );
    expect(withTensor(tensor('w', 1, [-3])).message).toContain('negative size -3');
    expect(withTensor(tensor('w', 1, [2 ** 40, 2 ** 40])).message).toContain('impossible shape');
    expect(withTensor(tensor('w', 77, [1])).message).toContain('unknown data type 77');
  });

  it('refuses graphs nested deeper than protobuf readers go', () => {
    let body: Write = graph({ outputs: [] });
    for (let depth = 0; depth < 200; depth += 1) {
      const inner = body;
      body = graph({
        nodes: [node('If', ['c'], ['y'], (writer) => writer.message(5, (attribute) => attribute.message(6, inner)))],
      });
    }
    const writer = new WireWriter().uint(1, 8).message(7, body);
    const error = refusal(writer.finish());
    expect(error.code).toBe('MODEL_INVALID');
    expect(error.message).toContain('deeper than 100');
  });

  it('refuses files that claim more pieces than any model has', () => {
    const nodes = new Uint8Array(2_100_000);
    for (let offset = 0; offset < nodes.byteLength; offset += 2) nodes[offset] = 0x0a;
    const writer = new WireWriter().uint(1, 8).message(7, (inner) => inner.raw(nodes));
    expect(refusal(writer.finish()).message).toContain('more nodes, tensors, values and names than are read: 4000000');
  });

  it('refuses what is not a model at all, with the reason', () => {
    expect(refusal(new Uint8Array(0)).message).toBe('not an ONNX model: it has no ir_version');
    expect(refusal(new TextEncoder().encode('<html>404</html>')).message).toContain('not a readable ONNX model');
    expect(refusal(new WireWriter().uint(1, 8).finish()).message).toBe('the model has no graph');
    expect(refusal(new WireWriter().uint(1, 15).finish()).message).toContain('IR version 15; versions 3 to 14');
    const twice = modelBytes({ modelRest: (writer) => writer.message(7, graph({})) });
    expect(refusal(twice).message).toBe('the model has two graphs');
    expect(refusal(modelBytes({})).message).toBe('the model has no outputs');
    const cut = identityModel(tensorType(1, [2]), tensorType(1, [2]));
    expect(refusal(cut.subarray(0, cut.byteLength - 3)).message).toContain('runs past the end');
  });
});

describe('reading garbage', () => {
  const outcome = (bytes: Uint8Array): void => {
    try {
      readModelFacts(bytes);
    } catch (thrown) {
      if (!(thrown instanceof IntarsiaError) || thrown.code !== 'MODEL_INVALID') throw thrown;
    }
  };

  it('answers random bytes with MODEL_INVALID and nothing else', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 400 }), outcome), {
      numRuns: 3000,
      plugins: [fc.interruptAfterTimeLimit(5000)],
    });
  });

  it('answers every mutation of a model with facts or with MODEL_INVALID', () => {
    const original = modelBytes({
      nodes: [
        node('If', ['c'], ['y'], (writer) =>
          writer.message(5, (attribute) =>
            attribute.string(1, 'then_branch').message(6, graph({ nodes: [node('Neg', ['x'], ['z'])] })),
          ),
        ),
      ],
      initializers: [
        tensor('w', 1, [2], externalData({ location: 'w.bin', offset: '0', length: '8' })),
        tensor('v', 7, [1], (writer) => writer.bytes(9, new Uint8Array(8))),
      ],
      inputs: [value('x', tensorType(1, ['batch', 3])), value('c', tensorType(9, []))],
      outputs: [value('y', tensorType(1, ['batch', 3]))],
      modelRest: (writer) =>
        writer.message(25, (definition) => definition.string(1, 'f').message(7, node('Neg', ['a'], ['b']))),
    });
    const edit = fc.record({
      at: fc.nat(original.byteLength - 1),
      byte: fc.nat(255),
      kind: fc.constantFrom('set', 'insert', 'delete', 'cut'),
    });
    fc.assert(
      fc.property(fc.array(edit, { minLength: 1, maxLength: 4 }), (edits) => {
        let bytes = [...original];
        for (const { at, byte, kind } of edits) {
          if (kind === 'set') bytes[at] = byte;
          else if (kind === 'insert') bytes.splice(at, 0, byte);
          else if (kind === 'delete') bytes.splice(at, 1);
          else bytes = bytes.slice(0, at);
        }
        outcome(Uint8Array.from(bytes));
      }),
      { numRuns: 5000, plugins: [fc.interruptAfterTimeLimit(8000)] },
    );
  });

  it.skipIf(sharedMissing)('answers mutations of real models likewise (skipped without ../shared/models)', () => {
    const files = ['silero-vad/silero_vad.onnx', 'triton-model-repository/simple_dyna_sequence/1/model.onnx'];
    for (const file of files) {
      const original = readFileSync(join(shared, file));
      fc.assert(
        fc.property(
          fc.array(fc.tuple(fc.nat(original.byteLength - 1), fc.nat(255)), { minLength: 1, maxLength: 8 }),
          (edits) => {
            const bytes = Uint8Array.from(original);
            for (const [at, byte] of edits) bytes[at] = byte;
            outcome(bytes);
          },
        ),
        { numRuns: 100, plugins: [fc.interruptAfterTimeLimit(4000)] },
      );
    }
  });
});

describe('comparing with ONNX Runtime', () => {
  function* modelFiles(folder: string): Generator<string> {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) yield* modelFiles(path);
      else if (entry.name.endsWith('.onnx')) yield path;
    }
  }
  const onnxTypes: Readonly<Record<string, string>> = {
    float32: 'FP32',
    float64: 'FP64',
    float16: 'FP16',
    string: 'BYTES',
    bool: 'BOOL',
    bfloat16: 'BF16',
  };

  it.skipIf(sharedMissing)(
    'finds the inputs and outputs that ONNX Runtime finds, in every model (skipped without ../shared/models)',
    { timeout: 120_000 },
    async () => {
      let compared = 0;
      for (const path of modelFiles(shared)) {
        let session: InferenceSession;
        try {
          session = await InferenceSession.create(path, { graphOptimizationLevel: 'disabled', logSeverityLevel: 4 });
        } catch {
          // A few fp16 models do not load without optimisation: there is nothing to compare with.
          continue;
        }
        const facts = readModelFacts(readFileSync(path));
        const shown = (values: typeof facts.inputs) =>
          values.map(({ name, datatype, shape }) => ({
            name,
            datatype,
            shape: (shape ?? []).map(({ size, symbol }) => (size === -1 ? symbol : size)),
          }));
        const wanted = (values: readonly InferenceSession.ValueMetadata[]) =>
          values.map((metadata) => {
            if (!metadata.isTensor) throw new Error(`${path}: ${metadata.name} is no tensor`);
            const { name, type, shape } = metadata;
            return { name, datatype: onnxTypes[type] ?? type.toUpperCase(), shape: [...shape] };
          });
        expect({ path, inputs: shown(facts.inputs), outputs: shown(facts.outputs) }).toEqual({
          path,
          inputs: wanted(session.inputMetadata),
          outputs: wanted(session.outputMetadata),
        });
        compared += 1;
        await session.release();
      }
      expect(compared).toBeGreaterThan(300);
    },
  );
});
