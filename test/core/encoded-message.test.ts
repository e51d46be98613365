import fc from 'fast-check';
import { expect, it } from 'vitest';
import { noParameters } from '#core/inference-message.js';
import { encodeInferResponse, encodeStreamInferResponse } from '#core/inference-wire.js';

it('pieces of an answer, one after the other, are the answer; long tensors are not copied', () => {
  const size = fc.oneof(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 16_000, max: 40_000 }));
  fc.assert(
    fc.property(fc.array(size, { maxLength: 5 }), fc.boolean(), (sizes, inStream) => {
      const outputs = sizes.map((bytes, index) => ({
        name: `y${index}`,
        datatype: 'UINT8',
        shape: [bytes],
        parameters: noParameters,
        data: new Uint8Array(bytes).fill(index + 1),
      }));
      const message = {
        modelName: 'm',
        modelVersion: '1',
        id: 'a',
        parameters: noParameters,
        outputs,
        rawContents: true,
      };
      const encoded = inStream ? encodeStreamInferResponse(message) : encodeInferResponse(message);
      const pieces = encoded.pieces(5, (bytes) => new Uint8Array(bytes));
      const [first, ...rest] = pieces;
      expect(Buffer.concat([first!.subarray(5), ...rest]).equals(encoded.toBytes())).toBe(true);
      expect(first!.byteLength).toBeGreaterThanOrEqual(5);
      if (encoded.byteLength >= 16 * 1024) {
        const long = outputs.filter(({ data }) => data.byteLength >= 16 * 1024);
        expect(long.every(({ data }) => pieces.includes(data))).toBe(true);
      }
    }),
  );
});
