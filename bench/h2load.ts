/**
 * Drives a gRPC server with `h2load` (Debian's nghttp2-client), a load generator in C: what a JavaScript client on the
 * same cores hides of the server's speed becomes visible.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface H2loadResult {
  /** Messages answered, which are calls unless a call carries several. */
  readonly requestsPerSecond: number;
  /** Bytes of all answers by the number of messages, heads included: h2load looks at no gRPC status, and an error is short. */
  readonly answerBytes: number;
}

/** Windows of 16 MiB, as the load generator of the project has them. */
const windowBits = 24;

/** Whether h2load is installed. */
export function hasH2load(): boolean {
  return spawnSync('h2load', ['--version']).status === 0;
}

/** Sends the same gRPC message again and again. `message` is the bare protobuf message; the frame is added here. */
export async function h2load(options: {
  readonly port: number;
  readonly path: string;
  readonly message: Uint8Array;
  readonly connections: number;
  readonly streams: number;
  /** Messages of each call, default 1. More: for methods that take a stream of them. */
  readonly messages?: number;
  readonly seconds: number;
  readonly warmUpSeconds: number;
}): Promise<H2loadResult> {
  const folder = mkdtempSync(join(tmpdir(), 'intarsia-h2load-'));
  try {
    const body = join(folder, 'body');
    const messages = options.messages ?? 1;
    const frame = Buffer.alloc(5 + options.message.byteLength);
    frame.writeUInt32BE(options.message.byteLength, 1);
    frame.set(options.message, 5);
    writeFileSync(body, Buffer.concat(Array<Buffer>(messages).fill(frame)));
    const child = spawn(
      'h2load',
      [
        `--clients=${options.connections}`,
        `--max-concurrent-streams=${options.streams}`,
        '--threads=1',
        `--window-bits=${windowBits}`,
        `--connection-window-bits=${windowBits}`,
        `--duration=${options.seconds}`,
        `--warm-up-time=${options.warmUpSeconds}`,
        `--data=${body}`,
        '--header=content-type: application/grpc',
        '--header=te: trailers',
        `http://127.0.0.1:${options.port}${options.path}`,
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    const [code] = (await once(child, 'close')) as [number | null];
    if (code !== 0) throw new Error(`h2load ended with ${String(code)}: ${output}`);
    return parseH2load(output, messages);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function parseH2load(output: string, messages: number): H2loadResult {
  const rate = /finished in [^,]+, ([\d.]+) req\/s/.exec(output)?.[1];
  const counts = /requests: .* (\d+) succeeded, (\d+) failed/.exec(output);
  const data = /traffic: .* headers .*, [\d.]+[KMG]?B \((\d+)\) data/.exec(output)?.[1];
  if (rate === undefined || counts === null || data === undefined) {
    throw new Error(`h2load said nothing that can be read: ${output}`);
  }
  const [, succeeded, failed] = counts;
  if (Number(failed) > 0) throw new Error(`${failed} calls of h2load failed: ${output}`);
  return {
    requestsPerSecond: Number(rate) * messages,
    answerBytes: Number(data) / Math.max(1, Number(succeeded) * messages),
  };
}
