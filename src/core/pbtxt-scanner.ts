/** The tokens of Protocol Buffers' text format, with line and column. Comments run from `#` to the end of the line. */
import { intarsiaError } from './errors.js';

export interface PbtxtToken {
  readonly kind: 'word' | 'number' | 'string' | 'punctuation' | 'end';
  /** Content of a string with its escapes resolved; anything else as it is written. */
  readonly text: string;
  /** `file:line:column`, both from 1. */
  readonly place: string;
}

const wordPattern = /[A-Za-z_][A-Za-z0-9_.]*/y;
const numberPattern = /(?:0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?)/y;
const spacePattern = /[ \t\r\n\f\v]+/y;
const commentPattern = /#[^\n]*/y;
const punctuation = '{}<>[]:;,-';

const simpleEscapes: Readonly<Record<string, number>> = {
  a: 7,
  b: 8,
  f: 12,
  n: 10,
  r: 13,
  t: 9,
  v: 11,
  '?': 63,
  '\\': 92,
  "'": 39,
  '"': 34,
};

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export class PbtxtScanner {
  readonly #text: string;
  readonly #fileName: string;
  #position = 0;
  /** The line that begins at `#lineStart`, from 1. Moves forward with the places asked for, which come in order. */
  #line = 1;
  #lineStart = 0;
  #lineEnd: number;

  constructor(text: string, fileName: string) {
    this.#text = text.startsWith('\uFEFF') ? text.slice(1) : text;
    this.#fileName = fileName;
    this.#lineEnd = this.#endOfLine(0);
  }

  /** The next token; at the end of the text `end`, again and again. @throws MODEL_INVALID on a character of no token. */
  next(): PbtxtToken {
    while (this.#match(spacePattern) !== '' || this.#match(commentPattern) !== '');
    const start = this.#position;
    const place = this.#placeOf(start);
    const character = this.#text[start];
    if (character === undefined) return { kind: 'end', text: '', place };
    if (character === '"' || character === "'") return { kind: 'string', text: this.#string(character, place), place };
    const word = this.#match(wordPattern);
    if (word !== '') return { kind: 'word', text: word, place };
    const number = this.#match(numberPattern);
    if (number !== '') {
      const after = this.#text[this.#position] ?? '';
      if (/[A-Za-z0-9_.]/.test(after)) throw this.failure(place, `${JSON.stringify(number + after)} is not a number`);
      return { kind: 'number', text: number, place };
    }
    if (punctuation.includes(character)) {
      this.#position = start + 1;
      return { kind: 'punctuation', text: character, place };
    }
    throw this.failure(place, `unexpected character ${JSON.stringify(character)}`);
  }

  /** An error at a place. */
  failure(place: string, problem: string): Error {
    return intarsiaError('MODEL_INVALID', `${place}: ${problem}`, { place });
  }

  #match(pattern: RegExp): string {
    pattern.lastIndex = this.#position;
    const found = pattern.exec(this.#text);
    if (found === null) return '';
    this.#position += found[0].length;
    return found[0];
  }

  #string(quote: string, place: string): string {
    const bytes: number[] = [];
    for (;;) {
      this.#position += 1;
      const character = this.#text[this.#position];
      if (character === undefined || character === '\n') throw this.failure(place, 'the string has no end');
      if (character === quote) break;
      if (character === '\\') {
        this.#position += 1;
        this.#escape(bytes, place);
        continue;
      }
      const code = this.#text.codePointAt(this.#position) ?? 0;
      if (code < 0x80) {
        bytes.push(code);
        continue;
      }
      bytes.push(...encoder.encode(String.fromCodePoint(code)));
      if (code > 0xffff) this.#position += 1;
    }
    this.#position += 1;
    try {
      return decoder.decode(Uint8Array.from(bytes));
    } catch {
      throw this.failure(place, 'the string is not UTF-8');
    }
  }

  /** Resolves the escape whose letter is at the position; leaves the position at its last character. */
  #escape(bytes: number[], place: string): void {
    const letter = this.#text[this.#position] ?? '';
    const simple = Object.hasOwn(simpleEscapes, letter) ? simpleEscapes[letter] : undefined;
    if (simple !== undefined) {
      bytes.push(simple);
      return;
    }
    const octal = this.#lookAhead(/[0-7]{1,3}/y, 0);
    if (octal !== '') {
      const value = Number.parseInt(octal, 8);
      if (value > 255) throw this.failure(place, `the escape \\${octal} is above \\377`);
      bytes.push(value);
      this.#position += octal.length - 1;
      return;
    }
    const hex = letter === 'x' || letter === 'X' ? this.#lookAhead(/[0-9a-fA-F]{1,2}/y, 1) : '';
    if (hex !== '') {
      bytes.push(Number.parseInt(hex, 16));
      this.#position += hex.length;
      return;
    }
    const digits = letter === 'u' ? 4 : letter === 'U' ? 8 : 0;
    const unicode = digits === 0 ? '' : this.#lookAhead(new RegExp(`[0-9a-fA-F]{${digits}}`, 'y'), 1);
    const code = unicode === '' ? -1 : Number.parseInt(unicode, 16);
    if (code < 0 || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
      throw this.failure(place, `unknown escape \\${letter}${unicode}`);
    }
    bytes.push(...encoder.encode(String.fromCodePoint(code)));
    this.#position += digits;
  }

  #lookAhead(pattern: RegExp, skip: number): string {
    pattern.lastIndex = this.#position + skip;
    return pattern.exec(this.#text)?.[0] ?? '';
  }

  #placeOf(position: number): string {
    while (this.#lineEnd < position) {
      this.#line += 1;
      this.#lineStart = this.#lineEnd + 1;
      this.#lineEnd = this.#endOfLine(this.#lineStart);
    }
    return `${this.#fileName}:${this.#line}:${position - this.#lineStart + 1}`;
  }

  #endOfLine(start: number): number {
    const newline = this.#text.indexOf('\n', start);
    return newline === -1 ? this.#text.length : newline;
  }
}
