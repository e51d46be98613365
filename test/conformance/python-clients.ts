/**
 * Starts the Python clients of ./python against a host and gives back what they found.
 *
 * The grpcio client needs Debian's python3-grpcio and python3-protobuf; the other one `tritonclient` from PyPI in a
 * folder of its own. Where one is missing, the reason is the answer: a test is then skipped with it.
 */
import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

const scripts = join(import.meta.dirname, 'python');
const runFile = promisify(execFile);

export interface PythonClient {
  readonly python: string;
  /** Folder with packages that the interpreter does not have itself. */
  readonly packages?: string;
}

export type FoundClient =
  { readonly ok: true; readonly client: PythonClient } | { readonly ok: false; readonly reason: string };

export interface ClientReport {
  readonly client: string;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  readonly checks: readonly {
    readonly name: string;
    readonly status: 'passed' | 'failed' | 'skipped';
    readonly detail: string;
  }[];
}

/** A Python that has grpcio and protobuf. */
export async function findGrpcioClient(): Promise<FoundClient> {
  for (const python of ['/usr/bin/python3', 'python3']) {
    if (await runsCode({ python }, 'import grpc, google.protobuf')) return { ok: true, client: { python } };
  }
  return { ok: false, reason: 'no Python with grpcio: apt-get install python3-grpcio python3-protobuf' };
}

/** A Python with Triton's client library in `folder`. Installs nothing: .ci/run does, or whoever reads the reason. */
export async function findTritonClient(folder: string): Promise<FoundClient> {
  const client: PythonClient = { python: 'python3', packages: folder };
  if (existsSync(folder) && (await runsCode(client, 'import tritonclient.grpc, tritonclient.http'))) {
    return { ok: true, client };
  }
  const install = `python3 -m pip install --target ${folder} 'tritonclient[grpc,http]'`;
  return { ok: false, reason: `no tritonclient in INTARSIA_TRITONCLIENT or where this puts it: ${install}` };
}

/** Runs `python/<script>` to its end. Rejects when it printed no report: then the script itself is broken. */
export async function runPythonClient(
  client: PythonClient,
  script: string,
  args: readonly string[],
): Promise<ClientReport> {
  const child = spawn(client.python, [join(scripts, script), ...args], {
    env: environmentOf(client),
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 240_000,
  });
  let output = '';
  let complaint = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString('utf8')));
  child.stderr.on('data', (chunk: Buffer) => (complaint = (complaint + chunk.toString('utf8')).slice(-4000)));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  if (!output.startsWith('{')) throw new Error(`${script} ended with ${String(code)} and no report: ${complaint}`);
  return JSON.parse(output) as ClientReport;
}

async function runsCode(client: PythonClient, code: string): Promise<boolean> {
  try {
    await runFile(client.python, ['-c', code], { timeout: 60_000, env: environmentOf(client) });
    return true;
  } catch {
    return false;
  }
}

function environmentOf({ packages }: PythonClient): NodeJS.ProcessEnv {
  const environment = { ...process.env, PYTHONDONTWRITEBYTECODE: '1' };
  return packages === undefined ? environment : { ...environment, PYTHONPATH: packages };
}
