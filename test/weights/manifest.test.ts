import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IntarsiaError } from '#core/errors.js';
import { orderHolders, type Holder } from '#core/grid/holder-order.js';
import { isManifestPath, manifestBytes, manifestFromText, manifestToText } from '#core/grid/manifest.js';
import { PublishedManifests } from '#core/grid/published-manifests.js';
import type { ModelManifest } from '#core/grid/records.js';
import { artifactDigest, hostId, modelName, modelVersion } from '#core/ids.js';

const sha = (character: string): string => character.repeat(64);

function manifest(changes: Readonly<Record<string, unknown>> = {}): ModelManifest {
  return {
    format: 1,
    model: modelName('digits'),
    version: modelVersion('3'),
    digest: artifactDigest(sha('a')),
    memoryBytes: 1000,
    files: [
      { path: '3/model.onnx', bytes: 700, sha256: sha('a') },
      { path: 'config.pbtxt', bytes: 20, sha256: sha('b') },
    ],
    ...changes,
  };
}

const file = (path: string): unknown => ({ path, bytes: 1, sha256: sha('c') });

describe('a manifest from outside', () => {
  it('is what was published', () => {
    expect(manifestFromText(manifestToText(manifest()))).toEqual(manifest());
    expect(manifestBytes(manifest())).toBe(720);
  });

  it.each([
    ['no JSON', '{'],
    ['another format', JSON.stringify(manifest({ format: 2 }))],
    ['no files', JSON.stringify(manifest({ files: [] }))],
    ['too many files', JSON.stringify(manifest({ files: Array.from({ length: 2001 }, (_, n) => file(`f${n}`)) }))],
    ['a path that leaves', JSON.stringify(manifest({ files: [file('../../etc/passwd')] }))],
    ['an absolute path', JSON.stringify(manifest({ files: [file('/etc/passwd')] }))],
    ['a path of another system', JSON.stringify(manifest({ files: [file('1\\..\\..\\x')] }))],
    ['a hidden file', JSON.stringify(manifest({ files: [file('1/.ssh')] }))],
    ['a control character', JSON.stringify(manifest({ files: [file('1/a\u0000b')] }))],
    ['a path twice', JSON.stringify(manifest({ files: [file('1/a'), file('1/a')] }))],
    ['a file that is a folder', JSON.stringify(manifest({ files: [file('1/a'), file('1/a/b')] }))],
    ['a negative size', JSON.stringify(manifest({ files: [{ ...(file('1/a') as object), bytes: -1 }] }))],
    ['no SHA-256', JSON.stringify(manifest({ files: [{ ...(file('1/a') as object), sha256: 'abc' }] }))],
    ['a model that is no folder', JSON.stringify(manifest({ model: 'a/b' }))],
    ['a version that is no number', JSON.stringify(manifest({ version: 'latest' }))],
  ])('with %s is refused', (_name, text) => {
    expect(() => manifestFromText(text)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });

  it('never makes a path that leaves its folder, whatever the text', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[a./\\]{0,12}$/)), (path) => {
        if (!isManifestPath(path)) return;
        expect(new URL(`file:///folder/${path.split('/').map(encodeURIComponent).join('/')}`).pathname).toMatch(
          /^\/folder\/./,
        );
        expect(path.split('/')).not.toContain('..');
      }),
      { numRuns: 500 },
    );
  });

  it('is either taken or refused with a code, whatever it is made of', () => {
    fc.assert(
      fc.property(fc.json(), (text) => {
        try {
          manifestFromText(text);
        } catch (error) {
          expect(error).toBeInstanceOf(IntarsiaError);
          expect((error as IntarsiaError).code).toBe('INVALID_ARGUMENT');
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe('published manifests', () => {
  it('name a content for as long as one of them has it', () => {
    const published = new PublishedManifests();
    const second = manifest({ version: '4', files: [{ path: 'config.pbtxt', bytes: 20, sha256: sha('b') }] });
    published.set(manifest());
    published.set(second);
    published.set(second);
    expect(published.bytesOf(sha('a'))).toBe(700);
    published.delete(modelName('digits'), modelVersion('3'));
    expect(published.bytesOf(sha('a'))).toBeUndefined();
    expect(published.bytesOf(sha('b'))).toBe(20);
    published.delete(modelName('digits'), modelVersion('4'));
    published.delete(modelName('digits'), modelVersion('4'));
    expect(published.bytesOf(sha('b'))).toBeUndefined();
    expect(published.all()).toEqual([]);
  });
});

describe('the order of holders', () => {
  const holder = (host: string, changes: Partial<Holder> = {}): Holder => ({
    host: hostId(host),
    zone: 'far',
    sameMachine: false,
    rttMs: 5,
    serves: true,
    ...changes,
  });

  it('is the same machine, the same zone, the round-trip time', () => {
    const peers = [
      holder('unknown', { rttMs: Infinity }),
      holder('slow', { rttMs: 80 }),
      holder('near', { rttMs: 1 }),
      holder('zone', { zone: 'here', rttMs: 90 }),
      holder('here', { sameMachine: true, rttMs: Infinity }),
    ];
    const order = orderHolders(peers, { zone: 'here', draw: 1 }, sha('a')).map(({ host }) => host);
    expect(order).toEqual(['here', 'zone', 'near', 'slow', 'unknown']);
  });

  it('spreads many askers over holders that are equally far', () => {
    const peers = Array.from({ length: 8 }, (_, index) => holder(`h${index}`));
    const first = new Map<string, number>();
    for (let asker = 0; asker < 400; asker += 1) {
      const chosen = orderHolders(peers, { zone: '', draw: asker }, sha('a'))[0]?.host ?? '';
      first.set(chosen, (first.get(chosen) ?? 0) + 1);
    }
    expect(first.size).toBe(8);
    expect(Math.max(...first.values())).toBeLessThan(100);
  });
});
