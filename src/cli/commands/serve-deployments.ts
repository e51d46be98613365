/**
 * `intarsia serve --deploy FILE`: a host brings its deployments with it. Where it is told of no store it is a grid of its
 * own, with an embedded store on a port of loopback that only it uses; so one machine serves split models on its devices
 * with nothing else running.
 */
import { asIntarsiaError, intarsiaError } from '#core/errors.js';
import type { WantedDeployment } from '#core/grid/deployment-file.js';
import type { GridStatus, InferenceClient } from '#client/index.js';
import type { GridConfig } from '#config.js';
import { deployOne, type DeployedOne } from '../deploy-file.js';
import { startProgress } from '../progress.js';
import type { Program, RunningHost } from '../program.js';
import type { Output } from '../terminal.js';

/** Between two looks at how far a deployment is, ms. */
const lookMs = 200;
/** For a host's files to be known, and beyond what a rollout may take by itself, ms. */
const patienceMs = 60_000;

/** The grid that a host with deployments is part of: the one it was told of, else one of its own. */
export function gridOfOne(grid: Partial<GridConfig> | undefined): Partial<GridConfig> {
  const isTold = (grid?.etcd ?? []).length > 0 || (grid?.join ?? '') !== '' || (grid?.storePort ?? -1) >= 0;
  return isTold ? { ...grid } : { linkPort: 0, ...grid, storePort: 0 };
}

/**
 * Makes them desired and waits until each serves, or has come to nothing.
 * @throws FAILED_PRECONDITION (refused by the gate or by placement, or not ready in its time), with the reason.
 */
export async function serveDeployments(
  host: RunningHost,
  wanted: readonly WantedDeployment[],
  { program, output }: { readonly program: Program; readonly output: Output },
): Promise<void> {
  if (wanted.length === 0) return;
  const client = host.connect();
  try {
    for (const deployment of wanted) {
      const { refusals, gate } = await deployWhenKnown(deployment, { client, program, output });
      if (refusals.length > 0) {
        throw intarsiaError('FAILED_PRECONDITION', `deployment ${deployment.name} is refused: ${refusals.join('; ')}`, {
          deployment: deployment.name,
        });
      }
      if (gate !== '') output.note(`${deployment.name}: ${gate}`);
    }
    for (const deployment of wanted) await untilServed(deployment, { client, program, output });
  } finally {
    client.close();
  }
}

interface Means {
  readonly client: InferenceClient;
  readonly program: Program;
  readonly output: Output;
}

/** What files a host has is known in its grid a moment after it has joined: large ones are read first. */
async function deployWhenKnown(deployment: WantedDeployment, means: Means): Promise<DeployedOne> {
  const { client, program, output } = means;
  const endMs = program.clock.nowMs() + patienceMs;
  for (;;) {
    try {
      return await deployOne(deployment, { client, output, dryRun: false });
    } catch (error) {
      if (asIntarsiaError(error).code !== 'MODEL_NOT_FOUND' || program.clock.nowMs() > endMs) throw error;
    }
    await pause(program);
  }
}

function pause({ clock }: Program): Promise<void> {
  return new Promise((resolve) => void clock.schedule(lookMs, resolve));
}

async function untilServed(deployment: WantedDeployment, { client, program, output }: Means): Promise<void> {
  const { name, model, rollout, replicas } = deployment;
  if (replicas === 0) return;
  const { clock } = program;
  const limitMs = rollout.progressMsMax + patienceMs;
  const endMs = clock.nowMs() + limitMs;
  const progress = startProgress(output, name);
  try {
    for (;;) {
      const found = stateOf(await client.grid.status(), name);
      if (found.state === 'complete' && (await client.modelReady(model, { version: deployment.version }))) return;
      if (found.state === 'stalled' || found.state === 'rolled-back' || clock.nowMs() > endMs) {
        const why = found.reason === '' ? `it is not ready after ${limitMs} ms` : found.reason;
        throw intarsiaError('FAILED_PRECONDITION', `deployment ${name} does not come to serve: ${why}`, {
          deployment: name,
        });
      }
      progress.update(found.ready / Math.max(1, found.wanted), found.reason);
      await pause(program);
    }
  } finally {
    progress.stop();
  }
}

function stateOf({ deployments }: GridStatus, name: string): GridStatus['deployments'][number] {
  const found = deployments.find((deployment) => deployment.name === name);
  if (found === undefined) throw intarsiaError('NOT_FOUND', `deployment ${name} was taken back`, { deployment: name });
  return found;
}
