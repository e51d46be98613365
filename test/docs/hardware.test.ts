import { describe, it } from 'vitest';
import { builtInProfiles } from '#core/hardware-profile-book.js';
import { linkPriors } from '#core/hardware-profile-links.js';
import { spotHazards } from '#core/hardware-profile-spot.js';
import { statedRows } from '#core/hardware-profile-stated.js';
import { expectTable } from './markdown-table.js';
import type { ProfileFigure } from '#core/hardware-profile.js';

const span = ({ low, high }: { readonly low: number; readonly high: number }): string =>
  low === high ? String(low) : `${low}–${high}`;

function shown(figure: ProfileFigure | undefined): string {
  if (figure === undefined) return '';
  const value =
    figure.low === undefined || figure.high === undefined
      ? String(figure.value)
      : span({ low: figure.low, high: figure.high });
  return `${value} ${figure.sources.join(' ')}${figure.note === undefined ? '' : ` (${figure.note})`}`;
}

describe('docs/hardware.md', () => {
  it('lists every built-in profile with the source of each figure', () => {
    expectTable('hardware.md', 'profiles', [
      [
        'key',
        'name',
        'memory GiB',
        'bandwidth GB/s',
        'FP16 TFLOPS',
        'FP8 TFLOPS',
        'INT8 TOPS',
        'TDP W',
        '$/h',
        'spot $/h',
      ],
      ...[...builtInProfiles.values()].map(({ key, name, figures }) => [
        `\`${key}\``,
        name,
        shown(figures.memoryGiB),
        shown(figures.bandwidthGBs),
        shown(figures.fp16Tflops),
        shown(figures.fp8Tflops),
        shown(figures.int8Tops),
        shown(figures.tdpWatts),
        shown(figures.usdPerHour),
        shown(figures.usdPerHourSpot),
      ]),
    ]);
  });

  it('lists every stated value beside what is right', () => {
    expectTable('hardware.md', 'stated', [
      ['row', 'what', 'stated', 'right', 'profile'],
      ...statedRows.map(({ row, what, statedValue, correction, profile }) => [
        row,
        what,
        statedValue,
        correction,
        `\`${profile}\``,
      ]),
    ]);
  });

  it('lists links and spot hazards', () => {
    expectTable('hardware.md', 'links', [
      ['link', 'GB/s', 'latency µs', 'note', 'source'],
      ...linkPriors.map(({ key, bandwidthGBs, latencyUs, note, source }) => [
        `\`${key}\``,
        bandwidthGBs === undefined ? '' : String(bandwidthGBs),
        latencyUs === undefined ? '' : span(latencyUs),
        note,
        source,
      ]),
    ]);
    expectTable('hardware.md', 'spot', [
      ['pool', 'availability', 'losses per hour of running'],
      ...spotHazards.map(({ pool, availability, lossesPerHour }) => [pool, span(availability), span(lossesPerHour)]),
    ]);
  });
});
