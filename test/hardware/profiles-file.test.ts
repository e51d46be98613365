import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseYaml, readYamlFile } from '#adapters/yaml/read-yaml.js';
import { IntarsiaError } from '#core/errors.js';
import { builtInProfiles } from '#core/hardware-profile-book.js';
import { addProfilesOfFile } from '#core/hardware-profile-file.js';
import { matchProfile } from '#core/hardware-profile.js';

const added = (text: string) => addProfilesOfFile(builtInProfiles, parseYaml(text, 'profiles.yaml'), 'profiles.yaml');

describe('profiles file', () => {
  it('overrides figures of a built-in profile and keeps the others', () => {
    const book = added('profiles:\n  nvidia-l4:\n    usdPerHour: 0.55\n    origin: contract 4711\n');
    const l4 = book.get('nvidia-l4')!;
    expect(l4.figures.usdPerHour).toEqual({ value: 0.55, sources: ['file'], note: 'contract 4711' });
    expect(l4.figures.memoryGiB!.value).toBe(24);
    expect(builtInProfiles.get('nvidia-l4')!.figures.usdPerHour!.value).toBe(0.8);
  });

  it('keeps what the founding documents said beside an overridden figure', () => {
    expect(added('profiles: { nvidia-h100-sxm: { int8Tops: 1979 } }').get('nvidia-h100-sxm')!.figures.int8Tops).toEqual(
      {
        value: 1979,
        sources: ['file'],
        statedValue: '3,958 TOPS',
      },
    );
  });

  it('adds a profile that drivers can be matched to', () => {
    const book = added(
      'profiles:\n  acme-npu:\n    name: ACME NPU\n    vendor: ACME\n    kind: npu\n    matches: [acme npu]\n    memoryGiB: 16\n    tdpWatts: 25\n',
    );
    expect(book.size).toBe(builtInProfiles.size + 1);
    expect(matchProfile(book, 'ACME(R) NPU rev 2')?.key).toBe('acme-npu');
  });

  it.each([
    [
      'profiles:\n  nvidia-l4:\n    usdPerHour: cheap\n',
      /profile nvidia-l4, field usdPerHour: expected a number from 0 to 1000000000; found "cheap"/,
    ],
    ['profiles:\n  nvidia-l4:\n    tdpWatts: -3\n', /profile nvidia-l4, field tdpWatts: .*found -3/],
    [
      'profiles:\n  nvidia-l4:\n    tdpwatts: 3\n',
      /profile nvidia-l4, field tdpwatts: expected no such field; known are .*tdpWatts/,
    ],
    ['profiles:\n  acme:\n    name: ACME\n    vendor: A\n', /profile acme, field kind: .*found nothing/],
    [
      'profiles:\n  acme:\n    name: ACME\n    vendor: A\n    kind: toaster\n',
      /field kind: expected one of cpu, gpu, npu; found "toaster"/,
    ],
    [
      'profiles:\n  acme:\n    name: ACME\n    vendor: A\n    kind: gpu\n    matches: acme\n',
      /field matches: expected a list of texts/,
    ],
    ['profiles:\n  "Not A Key": {}\n', /profile Not A Key: expected a key of at most 64/],
    ['profiles: []\n', /expected an object with `profiles:`/],
    ['prices: {}\nprofiles: {}\n', /field prices: expected no such field/],
    ['profiles:\n  a: [1\n', /profiles\.yaml, line \d+, column \d+/],
    ['profiles: {}\nprofiles: {}\n', /line 2, column 1: Map keys must be unique/],
    [
      'a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n',
      /alias/i,
    ],
  ])('refuses %j and names row and field', (text, message) => {
    expect(() => added(text)).toThrow(message);
    expect(() => added(text)).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }) as Error);
  });

  it('names a file that cannot be read', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'intarsia-yaml-'));
    try {
      await expect(readYamlFile(join(folder, 'absent.yaml'))).rejects.toThrow(/absent\.yaml: ENOENT/);
      writeFileSync(join(folder, 'present.yaml'), 'a: 1\n');
      expect(await readYamlFile(join(folder, 'present.yaml'))).toEqual({ a: 1 });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('answers any data with a book or with CONFIG_INVALID, never with another error', () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.anything(), fc.record({ profiles: fc.dictionary(fc.string(), fc.anything()) })),
        (data) => {
          try {
            expect(addProfilesOfFile(builtInProfiles, data, 'x').size).toBeGreaterThanOrEqual(builtInProfiles.size);
          } catch (error) {
            expect(error).toBeInstanceOf(IntarsiaError);
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});
