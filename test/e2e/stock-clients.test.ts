import { cp, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  findGrpcioClient,
  findTritonClient,
  runPythonClient,
  type FoundClient,
} from '../conformance/python-clients.js';
import { sharedModels, sharedModelsMissing } from '../conformance/shared-models.js';
import { startHostProcess, type HostProcess } from './host-process.js';
import { temporaryFolder } from './temporary-folder.js';
import { writeTritonExamples } from './triton-examples.js';

const grpcio = await findGrpcioClient();
const triton = await findTritonClient(
  process.env['INTARSIA_TRITONCLIENT'] ?? 'node_modules/.cache/intarsia/tritonclient',
);
const skipped = [grpcio, triton].flatMap((client) => (client.ok ? [] : [client.reason]));
const note = skipped.length === 0 ? '' : ` (partly skipped: ${skipped.join('; ')})`;

interface Findings {
  readonly passed: number;
  /** A line for each. */
  readonly failed: readonly string[];
  readonly skipped: readonly string[];
}

async function findingsOf(client: FoundClient, script: string, args: readonly string[]): Promise<Findings> {
  if (!client.ok) throw new Error(client.reason);
  const { passed, checks } = await runPythonClient(client.client, script, args);
  const linesOf = (wanted: string): string[] =>
    checks.filter(({ status }) => status === wanted).map(({ name, detail }) => `${name}: ${detail}`);
  return { passed, failed: linesOf('failed'), skipped: linesOf('skipped') };
}

const folder = temporaryFolder();

function tryClients(name: string, control: 'none' | 'explicit', write: (repository: string) => Promise<void>): void {
  let host: HostProcess;
  beforeAll(async () => {
    const repository = join(folder, name, control);
    await mkdir(repository, { recursive: true });
    await write(repository);
    const models = control === 'explicit' ? ['--load-model', '*'] : [];
    host = await startHostProcess(['--repository', repository, '--model-control-mode', control, ...models]);
  });
  afterAll(() => host.stop());

  it.skipIf(!grpcio.ok)(`a grpcio client finds ${name} served as by Triton, model control ${control}`, async () => {
    const { passed, failed } = await findingsOf(grpcio, 'grpcio_client.py', [host.grpc, '--control', control]);
    expect(failed).toEqual([]);
    expect(passed).toBeGreaterThanOrEqual(20);
  });

  it.skipIf(!triton.ok)(`tritonclient finds ${name} served as by Triton, model control ${control}`, async () => {
    const args = ['--grpc', host.grpc, '--http', new URL(host.http).host, '--control', control];
    const findings = await findingsOf(triton, 'triton_client.py', args);
    expect(findings.failed).toEqual([]);
    expect(findings.passed).toBeGreaterThanOrEqual(24);
    expect(findings.skipped).toEqual([
      'http: stream: HTTP has no streams',
      "http: cancellation: Triton's HTTP client cannot cancel",
    ]);
  });
}

describe.each(['none', 'explicit'] as const)(`models like Triton's examples, model control %s${note}`, (control) => {
  tryClients('models like its examples', control, writeTritonExamples);
});

const missing = sharedModelsMissing === '' ? '' : ` (skipped: ${sharedModelsMissing})`;
describe.skipIf(missing !== '').each(['none', 'explicit'] as const)(
  `Triton's own example repository, model control %s${note}${missing}`,
  (control) => {
    tryClients('its example repository', control, (repository) =>
      cp(join(sharedModels, 'triton-model-repository'), repository, { recursive: true }),
    );
  },
);
