/**
 * Completion scripts for bash, zsh and fish, made from the commands themselves: what `--help` shows is what is completed.
 * The scripts are plain lists; nothing is run while somebody types.
 */
import type { Command, Option } from 'commander';

export const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];

interface CompletionCommand {
  /** Words from the program to the command: [] for the program itself, ['models', 'list'] … */
  readonly path: readonly string[];
  readonly about: string;
  readonly subcommands: readonly { readonly name: string; readonly about: string }[];
  readonly options: readonly CompletionOption[];
}

interface CompletionOption {
  readonly flags: readonly string[];
  readonly about: string;
  /** Values it may take; empty when anything goes. */
  readonly choices: readonly string[];
  readonly takesValue: boolean;
  readonly takesFile: boolean;
}

export function completionScript(shell: Shell, program: Command): string {
  const commands = collect(program, []);
  if (shell === 'bash') return bashScript(commands);
  return shell === 'zsh' ? zshScript(commands) : fishScript(commands);
}

function collect(command: Command, path: readonly string[], inherited: readonly Option[] = []): CompletionCommand[] {
  const visible = command.commands.filter((child) => child.name() !== 'help');
  const options = [...command.options, ...inherited];
  return [
    {
      path,
      about: command.description(),
      subcommands: visible.map((child) => ({ name: child.name(), about: child.description() })),
      options: [
        ...options.map(optionOf),
        { flags: ['--help'], about: 'show help', choices: [], takesValue: false, takesFile: false },
      ],
    },
    ...visible.flatMap((child) =>
      collect(
        child,
        [...path, child.name()],
        options.filter((option) => path.length === 0 || inherited.includes(option)),
      ),
    ),
  ];
}

function optionOf(option: Option): CompletionOption {
  return {
    flags: [option.short, option.long].filter((flag) => flag !== undefined),
    about: option.description,
    choices: option.argChoices ?? [],
    takesValue: option.required || option.optional,
    takesFile: /<(file|dir|name=value)>/.test(option.flags),
  };
}

function bashScript(commands: readonly CompletionCommand[]): string {
  const cases = commands.map(({ path, subcommands, options }) => {
    const words = [...subcommands.map(({ name }) => name), ...options.flatMap(({ flags }) => flags)];
    return `    '${path.join(' ')}') words='${words.join(' ')}' ;;`;
  });
  const choices = new Map<string, readonly string[]>();
  const files = new Set<string>();
  for (const { options } of commands) {
    for (const option of options) {
      const [flag = ''] = option.flags.slice(-1);
      if (option.choices.length > 0) choices.set(flag, option.choices);
      if (option.takesFile) files.add(flag);
    }
  }
  const known = commands.filter(({ path }) => path.length > 0).map(({ path }) => `'${path.join(' ')}'`);
  return `# bash completion of intarsia: source this file, or put it into bash-completion's folder
_intarsia() {
  local word previous path words candidate
  word="\${COMP_WORDS[COMP_CWORD]}"
  previous="\${COMP_WORDS[COMP_CWORD-1]}"
  COMPREPLY=()
  case "$previous" in
${[...choices].map(([flag, values]) => `    ${flag}) COMPREPLY=($(compgen -W '${values.join(' ')}' -- "$word")); return ;;`).join('\n')}
${files.size === 0 ? '' : `    ${[...files].join('|')}) COMPREPLY=($(compgen -f -- "$word")); return ;;`}
  esac
  path=''
  for candidate in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "\${path:+$path }$candidate" in
      ${known.join('|')}) path="\${path:+$path }$candidate" ;;
    esac
  done
  words=''
  case "$path" in
${cases.join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -o default -F _intarsia intarsia
`;
}

function zshScript(commands: readonly CompletionCommand[]): string {
  const functions = commands.map((command) => {
    const name = functionName(command.path);
    const options = command.options.flatMap((option) =>
      option.flags.map((flag) => `    ${zshQuote(zshOption(flag, option))}`),
    );
    if (command.subcommands.length === 0) {
      return `${name}() {\n  _arguments \\\n${[...options, "    '*:file:_files'"].join(' \\\n')}\n}`;
    }
    const described = command.subcommands.map(({ name: child, about }) => `    ${zshQuote(`${child}:${about}`)}`);
    const branches = command.subcommands.map(
      ({ name: child }) => `        ${child}) ${functionName([...command.path, child])} ;;`,
    );
    return `${name}() {
  local context state line
  local -a commands
  commands=(
${described.join('\n')}
  )
  _arguments -C \\
${options.join(' \\\n')} \\
    '1: :->command' \\
    '*:: :->rest'
  case $state in
    command) _describe command commands ;;
    rest)
      case $line[1] in
${branches.join('\n')}
      esac ;;
  esac
}`;
  });
  return `#compdef intarsia
# zsh completion of intarsia: put this file as _intarsia into a folder of $fpath
${functions.join('\n')}
compdef _intarsia intarsia
`;
}

function zshOption(flag: string, { about, choices, takesValue, takesFile }: CompletionOption): string {
  const text = about.replaceAll('[', '(').replaceAll(']', ')').replaceAll(':', ' ');
  const value = !takesValue
    ? ''
    : choices.length > 0
      ? `:value:(${choices.join(' ')})`
      : takesFile
        ? ':file:_files'
        : ':value: ';
  return `${flag}[${text}]${value}`;
}

function functionName(path: readonly string[]): string {
  return ['_intarsia', ...path].join('_');
}

function zshQuote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function fishScript(commands: readonly CompletionCommand[]): string {
  const lines: string[] = [];
  for (const { path, subcommands, options } of commands) {
    const here =
      path.length === 0 ? '' : `__fish_seen_subcommand_from ${path.join('; and __fish_seen_subcommand_from ')}`;
    const names = subcommands.map(({ name }) => name);
    const before =
      names.length === 0
        ? here
        : `${here === '' ? '' : `${here}; and `}not __fish_seen_subcommand_from ${names.join(' ')}`;
    for (const { name, about } of subcommands) {
      lines.push(`complete -c intarsia -f -n ${fishQuote(before)} -a ${name} -d ${fishQuote(about)}`);
    }
    for (const { flags, about, choices, takesValue, takesFile } of options) {
      const names2 = flags
        .map((flag) => (flag.startsWith('--') ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`))
        .join(' ');
      const values =
        choices.length > 0 ? ` -x -a ${fishQuote(choices.join(' '))}` : takesFile ? ' -r -F' : takesValue ? ' -x' : '';
      const condition = before === '' ? '' : ` -n ${fishQuote(before)}`;
      lines.push(`complete -c intarsia${condition} ${names2}${values} -d ${fishQuote(about)}`);
    }
  }
  return `# fish completion of intarsia: put this file as intarsia.fish into ~/.config/fish/completions\n${lines.join('\n')}\n`;
}

function fishQuote(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}
