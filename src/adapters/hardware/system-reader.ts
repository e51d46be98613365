/**
 * How discovery sees the machine: files, folders and short commands. The real one reads this machine; tests hand in
 * recorded ones, so that an MI300X is discovered on a laptop.
 */
import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { access, open, readdir } from 'node:fs/promises';
import os from 'node:os';

export interface SystemReader {
  readonly platform: string;
  readonly arch: string;
  readonly hostname: string;
  readonly kernel: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** What the runtime itself knows, for systems without /proc. */
  readonly basics: {
    readonly cpuModel: string;
    readonly logicalCores: number;
    readonly totalBytes: number;
    readonly freeBytes: number;
  };
  /** Up to 4 MiB of text; undefined when the file is absent or cannot be read. */
  readText(path: string): Promise<string | undefined>;
  /** Names in a folder, sorted as numbers where they end in one; none when it is absent. */
  list(path: string): Promise<readonly string[]>;
  /** Whether a path is there, and whether we may read it. */
  access(path: string): Promise<'readable' | 'denied' | 'absent'>;
  /** Runs a command to its end; never longer than `timeoutMs`, never more than 4 MiB of output. */
  run(command: string, args: readonly string[], timeoutMs: number): Promise<CommandOutcome>;
}

export type CommandOutcome =
  | { readonly ok: true; readonly stdout: string }
  /** `reason` is `absent`, `timeout`, or the first line the command printed. */
  | { readonly ok: false; readonly reason: string };

const textBytesMax = 4 * 1024 * 1024;

/** The reader of this machine. */
export function thisMachine(): SystemReader {
  return {
    platform: process.platform,
    arch: process.arch,
    hostname: os.hostname(),
    kernel: os.release(),
    env: process.env,
    get basics() {
      const cpus = os.cpus();
      return {
        cpuModel: cpus[0]?.model ?? 'unknown processor',
        logicalCores: Math.max(1, cpus.length),
        totalBytes: os.totalmem(),
        freeBytes: os.freemem(),
      };
    },
    readText,
    list: async (path) => {
      try {
        return (await readdir(path)).sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
      } catch {
        return [];
      }
    },
    access: async (path) => {
      try {
        await access(path, constants.R_OK);
        return 'readable';
      } catch (error) {
        return (error as NodeJS.ErrnoException).code === 'EACCES' ? 'denied' : 'absent';
      }
    },
    run: (command, args, timeoutMs) =>
      new Promise((resolve) => {
        const options = {
          timeout: timeoutMs,
          killSignal: 'SIGKILL' as const,
          maxBuffer: textBytesMax,
          encoding: 'utf8' as const,
        };
        execFile(command, args, options, (error, stdout, stderr) => {
          if (error === null) resolve({ ok: true, stdout });
          else if ((error as NodeJS.ErrnoException).code === 'ENOENT') resolve({ ok: false, reason: 'absent' });
          else if (error.killed === true) resolve({ ok: false, reason: 'timeout' });
          else resolve({ ok: false, reason: firstLine(stdout) ?? firstLine(stderr) ?? error.message });
        });
      }),
  };
}

/** Files under /proc and /sys have no size: read until the end or the bound. */
async function readText(path: string): Promise<string | undefined> {
  let file;
  try {
    file = await open(path, 'r');
    const chunks: Buffer[] = [];
    let bytes = 0;
    while (bytes < textBytesMax) {
      const { bytesRead, buffer } = await file.read(Buffer.alloc(65_536), 0, 65_536, null);
      if (bytesRead === 0) break;
      chunks.push(buffer.subarray(0, bytesRead));
      bytes += bytesRead;
    }
    return Buffer.concat(chunks).toString('utf8');
  } catch {
    return undefined;
  } finally {
    await file?.close();
  }
}

function firstLine(text: string): string | undefined {
  return text
    .split('\n')
    .map((line) => line.trim())
    .find((line) => line !== '');
}
