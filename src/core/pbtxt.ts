/**
 * Protocol Buffers' text format, as in `config.pbtxt`: text in, a tree of fields with their places out.
 *
 * It knows the grammar, not the fields: model-config-*.ts gives them meaning, and names the place of what it refuses.
 * Grammar: https://protobuf.dev/reference/protobuf/textformat-spec. Extensions and `Any` are not part of a model's
 * configuration and are refused.
 */
import { intarsiaError } from './errors.js';
import { PbtxtScanner } from './pbtxt-scanner.js';
import type { PbtxtToken } from './pbtxt-scanner.js';

/** Where something stands, as error messages show it: `config.pbtxt:12:5`. */
export type Place = string;

/** A value that is not a message. */
export interface TextScalar {
  /**
   * `string` was quoted, `number` and `word` (an enum's name, `true`, `inf`) were not; `loose` came from JSON, where a
   * quoted text may also stand for a number or an enum's name.
   */
  readonly kind: 'string' | 'number' | 'word' | 'loose';
  /** Content of a string; a number or word as it is written. */
  readonly text: string;
  readonly place: Place;
}

export interface TextMessage {
  readonly kind: 'message';
  readonly fields: readonly TextField[];
  readonly place: Place;
}

export type TextValue = TextScalar | TextMessage;

/** One field; a list is as many fields of the same name. */
export interface TextField {
  readonly name: string;
  readonly value: TextValue;
  /** Where the name stands. */
  readonly place: Place;
}

/** Characters of a file that are read at most. */
const pbtxtCharactersMax = 4 * 1024 * 1024;
const depthMax = 100;

/**
 * Reads a whole file.
 * @param fileName Shown in places.
 * @throws MODEL_INVALID `config.pbtxt:12:5: …` at the first error.
 */
export function parsePbtxt(text: string, fileName: string): TextMessage {
  if (text.length > pbtxtCharactersMax) {
    throw intarsiaError(
      'MODEL_INVALID',
      `${fileName}: the file has ${text.length} characters; at most ${pbtxtCharactersMax} are read`,
      { file: fileName, charactersMax: pbtxtCharactersMax },
    );
  }
  const parser = new Parser(new PbtxtScanner(text, fileName));
  return { kind: 'message', fields: parser.fields('end', 0), place: `${fileName}:1:1` };
}

class Parser {
  readonly #scanner: PbtxtScanner;
  #token: PbtxtToken;

  constructor(scanner: PbtxtScanner) {
    this.#scanner = scanner;
    this.#token = scanner.next();
  }

  /** The fields up to a closing token, which is consumed. */
  fields(closing: string, depth: number): TextField[] {
    const fields: TextField[] = [];
    while (!this.#is(closing)) {
      if (this.#token.kind === 'end') throw this.#unexpected(`"${closing}"`);
      this.#field(fields, depth);
      if (this.#is(',') || this.#is(';')) this.#advance();
    }
    if (this.#token.kind !== 'end') this.#advance();
    return fields;
  }

  #field(fields: TextField[], depth: number): void {
    const { kind, text: name, place } = this.#token;
    if (kind !== 'word') throw this.#unexpected('a field name');
    this.#advance();
    const colon = this.#is(':');
    if (colon) this.#advance();
    if (this.#is('[')) {
      this.#advance();
      if (this.#is(']')) {
        this.#advance();
        return;
      }
      for (;;) {
        fields.push({ name, value: this.#value(name, colon, depth), place });
        if (this.#is(']')) break;
        if (!this.#is(',')) throw this.#unexpected(`"," or "]" in the list ${name}`);
        this.#advance();
      }
      this.#advance();
      return;
    }
    fields.push({ name, value: this.#value(name, colon, depth), place });
  }

  #value(name: string, colon: boolean, depth: number): TextValue {
    const { place } = this.#token;
    if (this.#is('{') || this.#is('<')) {
      if (depth + 1 > depthMax) throw this.#scanner.failure(place, `messages nest deeper than ${depthMax}`);
      const closing = this.#token.text === '{' ? '}' : '>';
      this.#advance();
      return { kind: 'message', fields: this.fields(closing, depth + 1), place };
    }
    if (!colon) throw this.#unexpected(`":" or "{" after ${name}`);
    return this.#scalar(name);
  }

  #scalar(name: string): TextScalar {
    const { kind, text, place } = this.#token;
    switch (kind) {
      case 'string': {
        let joined = text;
        this.#advance();
        // Neighbouring strings are one string.
        while (this.#token.kind === 'string') {
          joined += this.#token.text;
          this.#advance();
        }
        return { kind: 'string', text: joined, place };
      }
      case 'number':
      case 'word':
        this.#advance();
        return { kind, text, place };
      case 'punctuation':
        if (text === '-') {
          this.#advance();
          const sign = this.#token;
          if (sign.kind !== 'number' && !(sign.kind === 'word' && /^(inf(inity)?|nan)$/i.test(sign.text))) {
            throw this.#unexpected('a number after "-"');
          }
          this.#advance();
          return { kind: 'number', text: `-${sign.text}`, place };
        }
        throw this.#unexpected(`a value for ${name}`);
      case 'end':
        throw this.#unexpected(`a value for ${name}`);
    }
  }

  #is(text: string): boolean {
    if (text === 'end') return this.#token.kind === 'end';
    return this.#token.kind === 'punctuation' && this.#token.text === text;
  }

  #advance(): void {
    this.#token = this.#scanner.next();
  }

  #unexpected(wanted: string): Error {
    const { kind, text, place } = this.#token;
    const found = kind === 'end' ? 'the end of the file' : JSON.stringify(text.slice(0, 60));
    return this.#scanner.failure(place, `expected ${wanted}, found ${found}`);
  }
}
