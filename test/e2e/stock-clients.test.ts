import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findGrpcioClient, findTritonClient, runPythonClient } from '../conformance/python-clients.js';
import { sharedModels, sharedModelsMissing } from '../conformance/shared-models.js';
import { repositoryRoot, startHostProcess, type HostProcess } from './host-process.js';
import { temporaryFolder } from './temporary-folder.js';

const folder = temporaryFolder();
const packages =
  process.env['INTARSIA_TRITONCLIENT'] ?? join(repositoryRoot, 'node_modules/.cache/intarsia/tritonclient');
const grpcio = await findGrpcioClient();
const triton = await findTritonClient(packages);
const missing = sharedModelsMissing === '' ? '' : ` (skipped: ${sharedModelsMissing})`;

/** What a check that passed, failed or was skipped says, by name. */
async function failuresOf(
  client: typeof grpcio,
  script: string,
  args: readonly string[],
): Promise<{ readonly passed: number; readonly failed: readonly string[]; readonly skipped: readonly string[] }> {
  if (!client.ok) throw new Error(client.reason);
  const { passed, checks } = await runPythonClient(client.client, script, args);
  const linesOf = (wanted: string): string[] =>
    checks.filter(({ status }) => status === wanted).map(({ name, detail }) => `${name}: ${detail}`);
  return { passed, failed: linesOf('failed'), skipped: linesOf('skipped') };
}

function titleOf(title: string, client: typeof grpcio): string {
  return client.ok ? title : `${title} (skipped: ${client.reason})`;
}

describe.skipIf(missing !== '').each(['none', 'explicit'] as const)(
  `Triton's example repository, model control %s${missing}`,
  (control) => {
    let host: HostProcess;
    beforeAll(async () => {
      const repository = join(folder, control);
      await cp(join(sharedModels, 'triton-model-repository'), repository, { recursive: true });
      const all = control === 'explicit' ? ['--load-model', '*'] : [];
      host = await startHostProcess(['--repository', repository, '--model-control-mode', control, ...all]);
    });
    afterAll(() => host.stop());

    it.skipIf(!grpcio.ok)(
      titleOf(`a grpcio client finds everything as Triton has it, model control ${control}`, grpcio),
      async () => {
        const { passed, failed } = await failuresOf(grpcio, 'grpcio_client.py', [host.grpc, '--control', control]);
        expect(failed).toEqual([]);
        expect(passed).toBeGreaterThanOrEqual(20);
      },
    );

    it.skipIf(!triton.ok)(
      titleOf(`tritonclient finds everything as Triton has it, model control ${control}`, triton),
      async () => {
        const http = new URL(host.http).host;
        const args = ['--grpc', host.grpc, '--http', http, '--control', control];
        const { passed, failed, skipped } = await failuresOf(triton, 'triton_client.py', args);
        expect(failed).toEqual([]);
        expect(passed).toBeGreaterThanOrEqual(24);
        // HTTP has no streams, and Triton's HTTP client cannot cancel.
        expect(skipped).toHaveLength(2);
      },
    );
  },
);
