/** Where a command writes: text for people on a terminal, JSON for programs. Colours only where somebody sees them. */
import { styleText } from 'node:util';
import Table from 'cli-table3';

export interface Terminal {
  out(text: string): void;
  err(text: string): void;
  readonly outIsTty: boolean;
  readonly errIsTty: boolean;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Where progress bars are drawn, when `errIsTty`. */
  readonly progressStream?: NodeJS.WritableStream;
}

type Style = 'bold' | 'dim' | 'green' | 'red' | 'yellow';

/** What one invocation of a command prints through. */
export class Output {
  readonly terminal: Terminal;
  /** Nothing but one JSON document goes to the standard output. */
  readonly json: boolean;
  readonly verbose: boolean;
  readonly #colours: boolean;

  constructor(terminal: Terminal, options: { readonly json: boolean; readonly verbose: boolean }) {
    this.terminal = terminal;
    this.json = options.json;
    this.verbose = options.verbose;
    const { NO_COLOR: noColour, FORCE_COLOR: forceColour } = terminal.env;
    this.#colours =
      (noColour === undefined || noColour === '') &&
      (terminal.outIsTty || (forceColour !== undefined && forceColour !== '' && forceColour !== '0'));
  }

  /** A line for people; silent with `--json`. */
  line(text = ''): void {
    if (!this.json) this.terminal.out(`${text}\n`);
  }

  /** A line about the work itself, beside the result. */
  note(text: string): void {
    this.terminal.err(`${text}\n`);
  }

  /** The result as JSON, with `--json` only. 64-bit integers become numbers where they fit, text where they do not. */
  result(value: unknown): void {
    if (this.json) this.terminal.out(`${toJson(value)}\n`);
  }

  /** One JSON document a line, for results that repeat. */
  resultLine(value: unknown): void {
    if (this.json) this.terminal.out(`${toJson(value, 0)}\n`);
  }

  table(head: readonly string[], rows: readonly (readonly (string | number)[])[], rightFrom = Infinity): void {
    if (this.json) return;
    const table = new Table({
      head: head.map((text) => this.style('bold', text)),
      style: { head: [], border: [], compact: true, 'padding-left': 0, 'padding-right': 2 },
      chars: borderless,
      colAligns: head.map((_, column) => (column >= rightFrom ? 'right' : 'left')),
    });
    for (const row of rows) table.push(row.map(String));
    const text = table.toString();
    this.terminal.out(`${text.replace(/[ \t]+$/gm, '')}\n`);
  }

  style(style: Style, text: string): string {
    return this.#colours ? styleText(style, text, { validateStream: false }) : text;
  }
}

const borderless = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: '',
};

function toJson(value: unknown, indent = 2): string {
  return JSON.stringify(
    value,
    (_key, item: unknown) => {
      if (typeof item === 'bigint') return Number.isSafeInteger(Number(item)) ? Number(item) : String(item);
      if (item instanceof Map) return Object.fromEntries(item) as unknown;
      // JSON has no NaN and no infinities; null would hide which one it was.
      if (typeof item === 'number' && !Number.isFinite(item)) return String(item);
      return item;
    },
    indent,
  );
}
