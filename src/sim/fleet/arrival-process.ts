/**
 * Streams of arrivals: Poisson, Markov-modulated Poisson, diurnal, flash crowd, on/off. Each draws its times from the random
 * stream it is given. Rates are requests a second; a load puts another mean rate in their place and keeps their shape.
 *
 * All but the Markov-modulated ones are Poisson processes of a changing rate, drawn by thinning; the state of a modulated
 * one stays for exponential times.
 */
import { intarsiaError } from '#core/errors.js';
import type { Random } from '#ports/random.js';

export interface ArrivalProcess {
  /** As it is written, such as `poisson:rate=100`. */
  readonly words: string;
  /** Moments of so many arrivals (ms, ascending). */
  draw(count: number, random: Random): Float64Array;
}

export const arrivalKinds = ['poisson', 'mmpp', 'diurnal', 'flash', 'onoff'] as const;

/**
 * Reads a stream as written on the command line:
 *
 *     poisson:rate=100
 *     mmpp:rates=20/200,dwell=5000/1000       state i has rates[i] and stays for dwell[i] ms on average
 *     diurnal:rate=100,swing=0.8,period=86400000
 *     flash:rate=100,factor=10,every=60000,length=5000
 *     onoff:rate=100,on=5000,off=5000         rate while on, nothing while off
 *
 * @throws CONFIG_INVALID naming what is wrong with it.
 */
export function arrivalProcess(words: string): ArrivalProcess {
  const [kind = '', rest = ''] = words.split(':', 2);
  const fields = new Fields(words, rest);
  const process = processOf(kind, fields);
  if (process === undefined) {
    throw intarsiaError('CONFIG_INVALID', `arrivals ${JSON.stringify(words)}: known are ${arrivalKinds.join(', ')}`);
  }
  fields.finish();
  return { words, draw: process };
}

type Draw = ArrivalProcess['draw'];

function processOf(kind: string, fields: Fields): Draw | undefined {
  switch (kind) {
    case 'poisson': {
      const rate = fields.number('rate', 100);
      return (count, random) => thinned(count, random, rate, () => rate);
    }
    case 'diurnal': {
      const rate = fields.number('rate', 100);
      const swing = fields.number('swing', 0.8);
      const periodMs = fields.number('period', 86_400_000);
      if (swing > 1) throw fields.wrong('swing', 'at most 1', swing);
      const at = (ms: number): number => rate * (1 + swing * Math.sin((2 * Math.PI * ms) / periodMs));
      return (count, random) => thinned(count, random, rate * (1 + swing), at);
    }
    case 'flash': {
      const rate = fields.number('rate', 100);
      const factor = fields.number('factor', 10);
      const everyMs = fields.number('every', 60_000);
      const lengthMs = fields.number('length', 5000);
      // The crowd comes in the middle of its period, so that a run begins calmly.
      const at = (ms: number): number => {
        const phase = (ms % everyMs) - everyMs / 2;
        return phase >= 0 && phase < lengthMs ? rate * factor : rate;
      };
      return (count, random) => thinned(count, random, rate * Math.max(1, factor), at);
    }
    case 'mmpp':
      return modulated(fields.numbers('rates', [20, 200], true), fields.numbers('dwell', [5000, 1000], false), fields);
    case 'onoff': {
      const rates = [fields.number('rate', 100), 0];
      return modulated(rates, [fields.number('on', 5000), fields.number('off', 5000)], fields);
    }
    default:
      return undefined;
  }
}

/** A Poisson process whose rate changes, and is at most `rateMax`, a second. */
function thinned(count: number, random: Random, rateMax: number, rateAt: (ms: number) => number): Float64Array {
  const times = new Float64Array(count);
  let atMs = 0;
  for (let index = 0; index < count;) {
    atMs += exponential(random) * (1000 / rateMax);
    const rate = rateAt(atMs);
    if (rate < rateMax && random.next() * rateMax >= rate) continue;
    times[index] = atMs;
    index += 1;
  }
  return times;
}

/** A Poisson process whose rate is that of a state; states follow each other in turn. */
function modulated(rates: readonly number[], dwellMs: readonly number[], fields: Fields): Draw {
  if (rates.length !== dwellMs.length) throw fields.wrong('dwell', `${rates.length} times, one a rate`, dwellMs.length);
  if (!rates.some((rate) => rate > 0)) throw fields.wrong('rates', 'one above 0', 0);
  return (count, random) => {
    const times = new Float64Array(count);
    let atMs = 0;
    let state = 0;
    let endsMs = exponential(random) * (dwellMs[0] as number);
    for (let index = 0; index < count;) {
      const rate = rates[state] as number;
      // Memoryless: what was drawn for a state that ended says nothing of the next.
      const nextMs = rate > 0 ? atMs + exponential(random) * (1000 / rate) : Infinity;
      if (nextMs < endsMs) {
        atMs = nextMs;
        times[index] = atMs;
        index += 1;
      } else {
        atMs = endsMs;
        state = (state + 1) % rates.length;
        endsMs = atMs + exponential(random) * (dwellMs[state] as number);
      }
    }
    return times;
  };
}

/** With mean 1. */
function exponential(random: Random): number {
  return -Math.log(1 - random.next());
}

/** `name=value,name=value`. */
class Fields {
  readonly #words: string;
  readonly #values = new Map<string, string>();

  constructor(words: string, text: string) {
    this.#words = words;
    for (const part of text === '' ? [] : text.split(',')) {
      const [name = '', value] = part.split('=', 2);
      if (value === undefined) throw this.wrong(name, 'name=value', part);
      this.#values.set(name, value);
    }
  }

  number(name: string, fallback: number): number {
    return this.numbers(name, [fallback], false)[0] as number;
  }

  /** Above 0, or from 0 on where `zero`. */
  numbers(name: string, fallback: readonly number[], zero: boolean): readonly number[] {
    const text = this.#values.get(name);
    this.#values.delete(name);
    if (text === undefined) return fallback;
    return text.split('/').map((part) => {
      const value = part === '' ? Number.NaN : Number(part);
      if (!(value < Infinity && (zero ? value >= 0 : value > 0))) {
        throw this.wrong(name, zero ? 'numbers of 0 or more' : 'numbers above 0', part);
      }
      return value;
    });
  }

  finish(): void {
    for (const [name, value] of this.#values) throw this.wrong(name, 'no such field', value);
  }

  wrong(field: string, wanted: string, value: unknown): Error {
    return intarsiaError(
      'CONFIG_INVALID',
      `arrivals ${JSON.stringify(this.#words)}: ${field === '' ? '' : `${field}: `}expected ${wanted}; found ${String(value)}`,
    );
  }
}
