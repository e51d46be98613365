import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IntarsiaError } from '#core/errors.js';
import { parsePbtxt, type TextMessage, type TextValue } from '#core/pbtxt.js';

/** The tree without its places: a list of [name, value]. */
function plain(message: TextMessage): unknown[] {
  const show = (value: TextValue): unknown => (value.kind === 'message' ? plain(value) : `${value.kind} ${value.text}`);
  return message.fields.map(({ name, value }) => [name, show(value)]);
}

function failure(text: string): string {
  try {
    parsePbtxt(text, 'config.pbtxt');
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(IntarsiaError);
    expect((thrown as IntarsiaError).code).toBe('MODEL_INVALID');
    return (thrown as IntarsiaError).message;
  }
  throw new Error('the text was accepted');
}

describe('reading the protobuf text format', () => {
  it('reads scalars, messages with and without colon, both brackets, lists and separators', () => {
    const text = `
      # a comment
      name: "m"  max_batch_size : 8; kind: KIND_CPU,  # another
      input { dims: [ 1, -1, 0x10 ] }
      output: < dims: 3 dims: -4 >
      control_input [ { a: 1 }, < b: true > ]
      empty: []
      rate: -1.5e-3 small: .5f big: -inf
    `;
    expect(plain(parsePbtxt(text, 'config.pbtxt'))).toEqual([
      ['name', 'string m'],
      ['max_batch_size', 'number 8'],
      ['kind', 'word KIND_CPU'],
      [
        'input',
        [
          ['dims', 'number 1'],
          ['dims', 'number -1'],
          ['dims', 'number 0x10'],
        ],
      ],
      [
        'output',
        [
          ['dims', 'number 3'],
          ['dims', 'number -4'],
        ],
      ],
      ['control_input', [['a', 'number 1']]],
      ['control_input', [['b', 'word true']]],
      ['rate', 'number -1.5e-3'],
      ['small', 'number .5f'],
      ['big', 'number -inf'],
    ]);
  });

  it('resolves escapes and joins neighbouring strings', () => {
    const text = String.raw`a: "x\ty\n\"\\" 'it''s' "\x41\101\u00e9\U0001F600" "é😀"`;
    expect(plain(parsePbtxt(text, 'f'))).toEqual([['a', 'string x\ty\n"\\itsAAé😀é😀']]);
  });

  it('gives every field and value its line and column', () => {
    const { fields } = parsePbtxt('\uFEFFa: 1\n  b {\r\n\tc: "x" }', 'config.pbtxt');
    expect(fields.map(({ place, value }) => [place, value.place])).toEqual([
      ['config.pbtxt:1:1', 'config.pbtxt:1:4'],
      ['config.pbtxt:2:3', 'config.pbtxt:2:5'],
    ]);
    const inner = fields[1]?.value;
    expect(inner?.kind === 'message' && inner.fields[0]?.place).toBe('config.pbtxt:3:2');
  });

  it.each([
    ['name: "a', 'config.pbtxt:1:7: the string has no end'],
    ['a: 1\nb: }', 'config.pbtxt:2:4: expected a value for b, found "}"'],
    ['input {\n  name: "a"\n', 'config.pbtxt:3:1: expected "}", found the end of the file'],
    ['a: 1 }', 'config.pbtxt:1:6: expected a field name, found "}"'],
    ['a 1', 'config.pbtxt:1:3: expected ":" or "{" after a, found "1"'],
    ['a: [ 1 2 ]', 'config.pbtxt:1:8: expected "," or "]" in the list a, found "2"'],
    ['a: [ 1,', 'config.pbtxt:1:8: expected a value for a, found the end of the file'],
    ['a: 12ab', 'config.pbtxt:1:4: "12a" is not a number'],
    ['a: -b', 'config.pbtxt:1:5: expected a number after "-", found "b"'],
    ['a: "\\q"', 'config.pbtxt:1:4: unknown escape \\q'],
    ['a: "\\777"', 'config.pbtxt:1:4: the escape \\777 is above \\377'],
    ['a: "\\ud800"', 'config.pbtxt:1:4: unknown escape \\ud800'],
    ['a: "\\377"', 'config.pbtxt:1:4: the string is not UTF-8'],
    ['a: 1 @', 'config.pbtxt:1:6: unexpected character "@"'],
    ['[ext.field]: 1', 'config.pbtxt:1:1: expected a field name, found "["'],
  ])('refuses %j with its place', (text, message) => {
    expect(failure(text)).toBe(message);
  });

  it('bounds depth and size', () => {
    expect(failure('a{'.repeat(200))).toContain('nest deeper than 100');
    expect(failure(' '.repeat(4 * 1024 * 1024 + 1))).toContain('at most 4194304 are read');
  });

  it('answers any text with a tree or with a place', () => {
    const token = fc.constantFrom(
      'a',
      ':',
      '{',
      '}',
      '<',
      '>',
      '[',
      ']',
      ',',
      ';',
      '-',
      '1',
      '0x',
      '.5',
      '"s"',
      "'",
      '"',
      '\\',
      '#',
      '\n',
      ' ',
      'inf',
      'é',
      '\ud800',
    );
    fc.assert(
      fc.property(fc.array(token, { maxLength: 40 }), (tokens) => {
        try {
          parsePbtxt(tokens.join(''), 'f');
        } catch (thrown) {
          if (!(thrown instanceof IntarsiaError) || !/^f:\d+:\d+: /.test(thrown.message)) throw thrown;
        }
      }),
      { numRuns: 5000, plugins: [fc.interruptAfterTimeLimit(5000)] },
    );
  });

  it('reads back what it is written from', () => {
    const name = fc.stringMatching(/^[a-z_]{1,8}$/);
    const leaf = fc.oneof(
      fc.integer().map((value) => ({ text: String(value), shown: `number ${value}` })),
      fc.string({ unit: 'grapheme' }).map((value) => ({ text: quoted(value), shown: `string ${value}` })),
      fc.constantFrom('true', 'TYPE_FP32').map((value) => ({ text: value, shown: `word ${value}` })),
    );
    const fields = fc.array(fc.tuple(name, leaf), { maxLength: 6 });
    fc.assert(
      fc.property(fields, fields, (outer, inner) => {
        const write = (list: typeof outer): string => list.map(([key, { text }]) => `${key}: ${text}`).join('\n');
        const shown = (list: typeof outer): unknown[] => list.map(([key, value]) => [key, value.shown]);
        const tree = parsePbtxt(`${write(outer)} nested { ${write(inner)} }`, 'f');
        expect(plain(tree)).toEqual([...shown(outer), ['nested', shown(inner)]]);
      }),
      { numRuns: 500 },
    );
  });

  it('reads one long line as fast as many short ones', () => {
    const { fields } = parsePbtxt('a: 1 '.repeat(200_000), 'f');
    expect(fields[199_999]?.place).toBe('f:1:999996');
  });
});

function quoted(text: string): string {
  let written = '';
  for (const byte of new TextEncoder().encode(text)) written += `\\${byte.toString(8).padStart(3, '0')}`;
  return `"${written}"`;
}
