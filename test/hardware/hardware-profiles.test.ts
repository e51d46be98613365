import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { builtInProfiles } from '#core/hardware-profile-book.js';
import { estimateMs, matchProfile, profileFigureNames, profileIsStale } from '#core/hardware-profile.js';
import { linkPrior, linkPriors } from '#core/hardware-profile-links.js';
import { spotHazardPerHour, spotHazards } from '#core/hardware-profile-spot.js';
import { statedRows } from '#core/hardware-profile-stated.js';
import type { HardwareProfile, ProfileFigureName } from '#core/hardware-profile.js';

/** Rows of the reviewed table whose name stands for several profiles, or differs from the profile's. */
const profilesOfRow: Readonly<Record<string, readonly string[]>> = {
  'NVIDIA A10 / A10G': ['nvidia-a10', 'nvidia-a10g'],
  'NVIDIA V100 SXM2': ['nvidia-v100-sxm2-16', 'nvidia-v100-sxm2-32'],
  'AMD Ryzen 9 7950X / Intel i9-13900K': ['amd-ryzen-9-7950x', 'intel-core-i9-13900k'],
  'Apple M4 (M1 Pro measured)': ['apple-m4'],
  'Arm Cortex-A78AE (Orin CPU) / Mali-G610 / Raspberry Pi 4': ['arm-cortex-a78ae', 'arm-mali-g610', 'raspberry-pi-4'],
};

const tableRows = readFileSync(new URL('fixtures/profile-table.md', import.meta.url), 'utf8')
  .split('\n')
  .filter((line) => line.startsWith('| ') && !line.startsWith('| device') && !line.startsWith('| --'))
  .map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );

function profilesNamed(device: string): readonly HardwareProfile[] {
  const keys = profilesOfRow[device];
  if (keys !== undefined) return keys.map((key) => builtInProfiles.get(key)!);
  return [...builtInProfiles.values()].filter((profile) => profile.name === device);
}

/** Numbers of a text: `1,307` is one thousand three hundred and seven, `10.4 kW` is 10,400. */
function numbersOf(text: string): readonly number[] {
  return [...text.matchAll(/(\d[\d,]*(?:\.\d+)?)( kW)?/g)].map(([, digits, kilowatts]) => {
    const value = Number(digits!.replace(/,/g, ''));
    return kilowatts === undefined ? value : value * 1000;
  });
}

const columns: readonly (readonly [column: number, figures: readonly ProfileFigureName[]])[] = [
  [1, ['memoryGiB']],
  [2, ['bandwidthGBs']],
  [3, ['fp16Tflops']],
  [4, ['int8Tops', 'fp8Tflops']],
  [5, ['tdpWatts']],
  [6, ['usdPerHour', 'usdPerHourSpot']],
];

describe('built-in hardware profiles', () => {
  it('has every row of the reviewed table, and nothing but those rows and two classes', () => {
    expect(tableRows).toHaveLength(48);
    const covered = new Set(
      tableRows.flatMap(([device]) => {
        const found = profilesNamed(device!);
        expect(found, device).not.toHaveLength(0);
        return found.map((profile) => profile.key);
      }),
    );
    expect([...builtInProfiles.keys()].filter((key) => !covered.has(key))).toEqual([
      'class-cloud-cpu',
      'class-edge-npu',
    ]);
    expect(builtInProfiles.size).toBe(55);
  });

  it.each(tableRows.map((row) => [row[0]!, row] as const))('keeps every number of the row %s', (device, row) => {
    const known = new Set(numbersOf(JSON.stringify(profilesNamed(device))));
    for (const cell of row.slice(1, 8))
      for (const number of numbersOf(cell)) expect(known, `${device}: ${cell}`).toContain(number);
  });

  it.each(tableRows.map((row) => [row[0]!, row] as const))(
    'says nothing that the row %s does not say',
    (device, row) => {
      for (const profile of profilesNamed(device)) {
        for (const [column, names] of columns) {
          const allowed = new Set([...numbersOf(row[column]!), ...(row[column]!.includes('820 GiB/s') ? [880.5] : [])]);
          for (const name of names) {
            const figure = profile.figures[name];
            if (figure === undefined) continue;
            for (const number of figure.low === undefined ? [figure.value] : [figure.low, figure.high]) {
              expect(allowed, `${profile.key} ${name}`).toContain(number);
            }
            expect(figure.sources.length).toBeGreaterThan(0);
          }
        }
        for (const { value, benchmark } of profile.measured)
          expect(numbersOf(row[7]!), `${profile.key} ${benchmark}`).toContain(value);
      }
    },
  );

  it('uses dense figures with their sources, spot-checked', () => {
    const l4 = builtInProfiles.get('nvidia-l4')!;
    expect(l4.figures.memoryGiB).toEqual({ value: 24, sources: ['A'] });
    expect(l4.figures.usdPerHour).toEqual({ value: 0.8, sources: ['P'] });
    expect(l4.figures.usdPerHourSpot).toEqual({ value: 0.375, low: 0.35, high: 0.4, sources: ['P'] });
    expect(l4.measured).toContainEqual({ benchmark: 'resnet50-offline samples/s', value: 12_800, sources: ['4'] });
    expect(builtInProfiles.get('nvidia-h100-sxm')!.figures.int8Tops).toMatchObject({
      value: 1978,
      statedValue: '3,958 TOPS',
    });
    expect(builtInProfiles.get('amd-mi210')!.figures).toMatchObject({
      int8Tops: { value: 181, statedValue: '383 TOPS' },
      bandwidthGBs: { value: 1638, statedValue: '3.2 TB/s', sources: ['K'] },
      tdpWatts: { value: 300, statedValue: '560 W' },
    });
    expect(builtInProfiles.get('intel-gaudi-2')!.figures.int8Tops).toBeUndefined();
    expect(builtInProfiles.get('cerebras-wse-3')!.figures.fp16Tflops!.statedValue).toBe('~125,000 TOPS');
  });

  it('keeps every row of the founding documents beside the figures used', () => {
    expect([...new Set(statedRows.map(({ row }) => row))]).toEqual([
      'NVIDIA A100',
      'Intel NPU (Gaudi 2)',
      'AMD MI210',
      'Arm Neoverse V2',
      'NVIDIA H100',
      'Groq LPU',
      'Cerebras WSE',
      'Cloud CPU',
      'Edge NPU',
    ]);
    for (const { profile, figure, row, statedValue } of statedRows) {
      const holder = builtInProfiles.get(profile)!;
      expect(holder.stated.some((one) => one.row === row && one.statedValue === statedValue)).toBe(true);
      if (figure !== undefined && holder.figures[figure] !== undefined) {
        expect(holder.figures[figure].statedValue, `${profile} ${figure}`).toBeDefined();
      }
    }
  });

  it('cannot be changed by accident', () => {
    const l4 = builtInProfiles.get('nvidia-l4')!;
    expect(Object.isFrozen(l4) && Object.isFrozen(l4.figures) && Object.isFrozen(l4.figures.memoryGiB)).toBe(true);
    for (const profile of builtInProfiles.values()) {
      for (const name of Object.keys(profile.figures)) expect(profileFigureNames).toContain(name);
    }
  });
});

describe('matchProfile', () => {
  it.each([
    ['NVIDIA L4', 'nvidia-l4'],
    ['NVIDIA L40S', 'nvidia-l40s'],
    ['Tesla T4', 'nvidia-t4'],
    ['Tesla V100-SXM2-16GB', 'nvidia-v100-sxm2-16'],
    ['Tesla V100-SXM2-32GB', 'nvidia-v100-sxm2-32'],
    ['NVIDIA A100-SXM4-80GB', 'nvidia-a100-sxm-80'],
    ['NVIDIA A100-SXM4-40GB', 'nvidia-a100-sxm-40'],
    ['NVIDIA A100-SXM4-80GB MIG 1g.10gb', 'nvidia-a100-mig-1g.10gb'],
    ['NVIDIA A10', 'nvidia-a10'],
    ['NVIDIA A10G', 'nvidia-a10g'],
    ['NVIDIA A30', 'nvidia-a30'],
    ['NVIDIA H100 80GB HBM3', 'nvidia-h100-sxm'],
    ['NVIDIA H100 PCIe', 'nvidia-h100-pcie'],
    ['NVIDIA H200', 'nvidia-h200-sxm'],
    ['NVIDIA GH200 480GB', 'nvidia-gh200-96'],
    ['NVIDIA B200', 'nvidia-b200-sxm'],
    ['NVIDIA B300 SXM6 AC', 'nvidia-b300-sxm'],
    ['NVIDIA GeForce RTX 4090', 'nvidia-rtx-4090'],
    ['NVIDIA RTX PRO 6000 Blackwell Server Edition', 'nvidia-rtx-pro-6000-se'],
    ['AMD Instinct MI300X', 'amd-mi300x'],
    ['AMD Instinct MI250X / MI250', 'amd-mi250x'],
    ['Intel(R) Arc(TM) Pro B60 Graphics', 'intel-arc-pro-b60'],
    ['Intel(R) Xeon(R) 6980P', 'intel-xeon-6980p'],
    ['INTEL(R) XEON(R) PLATINUM 8592+', 'intel-xeon-8592plus'],
    ['AMD Ryzen 9 7950X 16-Core Processor', 'amd-ryzen-9-7950x'],
    ['13th Gen Intel(R) Core(TM) i9-13900K', 'intel-core-i9-13900k'],
    ['Apple M4', 'apple-m4'],
    ['Raspberry Pi 4 Model B Rev 1.4', 'raspberry-pi-4'],
  ])('knows %s', (driverName, key) => {
    expect(matchProfile(builtInProfiles, driverName)?.key).toBe(key);
  });

  it.each([
    'NVIDIA H100 NVL',
    'NVIDIA H100 80GB HBM3 MIG 1g.10gb',
    'NVIDIA GeForce RTX 4090 Laptop GPU',
    'NVIDIA GeForce RTX 4090 D',
    'Apple M4 Max',
    'Intel(R) Xeon(R) Processor',
    '',
    'NVIDIA',
  ])('finds no neighbour for %s', (driverName) => {
    expect(matchProfile(builtInProfiles, driverName)).toBeUndefined();
  });
});

describe('priors', () => {
  it('estimates the slower of arithmetic and memory traffic plus the launches', () => {
    const l4 = builtInProfiles.get('nvidia-l4')!;
    // 121 TFLOPS × 0.6 → 72.6e9 a ms; 300 GB/s × 0.8 → 240e6 bytes a ms.
    expect(estimateMs(l4, { flops: 72.6e9, bytes: 0, kernels: 0 })).toBeCloseTo(1, 9);
    expect(estimateMs(l4, { flops: 0, bytes: 480e6, kernels: 100 })).toBeCloseTo(2.3, 9);
    expect(estimateMs(builtInProfiles.get('raspberry-pi-4')!, { flops: 1, bytes: 1, kernels: 1 })).toBeUndefined();
  });

  it('says when a profile should be looked at again', () => {
    const l4 = builtInProfiles.get('nvidia-l4')!;
    expect(profileIsStale(l4, Date.UTC(2026, 8, 1))).toBe(false);
    expect(profileIsStale(l4, Date.UTC(2027, 10, 1))).toBe(true);
  });

  it('knows links and spot hazards', () => {
    expect(linkPriors).toHaveLength(16);
    expect(linkPrior('nvlink-5')).toMatchObject({ bandwidthGBs: 900 });
    expect(linkPrior('tier-core')?.latencyUs).toEqual({ low: 40_000, high: 200_000 });
    expect(spotHazards).toHaveLength(16);
    expect(spotHazards.find(({ pool }) => pool === 'V100 AWS us-east-1a')?.lossesPerHour.low).toBe(1.39);
    expect(spotHazardPerHour({ losses: 0, upHours: 0 })).toBeCloseTo(0.3, 12);
    expect(spotHazardPerHour({ losses: 1000, upHours: 1000 })).toBeCloseTo(1, 2);
  });
});
