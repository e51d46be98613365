/**
 * Deployments of a file, made desired through a host: what `intarsia deploy` and `intarsia serve --deploy` have in common.
 * A split is made and compared by the host first; the command line never needs the model's file.
 */
import { dirname, resolve } from 'node:path';
import { intarsiaError } from '#core/errors.js';
import { deploymentsOfFile, wantedToText, type WantedDeployment } from '#core/grid/deployment-file.js';
import type { DeployResult, InferenceClient, PreparedSplit } from '#client/index.js';
import { startProgress } from './progress.js';
import type { Program } from './program.js';
import type { Output } from './terminal.js';

/** At least one. @throws CONFIG_INVALID with the file's name and the path in it. */
export async function readDeployments(file: string, program: Program): Promise<readonly WantedDeployment[]> {
  const content = deploymentOfPlan(await program.readYamlFile(file), file);
  const data = Array.isArray(content) ? { deployments: content as unknown } : content;
  const wanted = deploymentsOfFile(await withPlans(data, file, program), file);
  if (wanted.length === 0) throw intarsiaError('CONFIG_INVALID', `${file} holds no deployment`, {});
  return wanted;
}

/** The deployment that a report of `intarsia plan` says, or the content as it is. @throws CONFIG_INVALID (it has no plan). */
function deploymentOfPlan(content: unknown, file: string): unknown {
  if (typeof content !== 'object' || content === null || !('frontier' in content) || !('verdict' in content))
    return content;
  const { deployment, reason } = content as { readonly deployment?: unknown; readonly reason?: unknown };
  if (deployment !== undefined) return deployment;
  const why = typeof reason === 'string' && reason !== '' ? `: ${reason}` : '';
  throw intarsiaError('CONFIG_INVALID', `${file} is a plan that found nothing to deploy${why}`, { file });
}

export interface DeployedOne extends DeployResult {
  /** What the equivalence gate found; empty for a whole model, and where nothing was compared. */
  readonly gate: string;
  readonly verification?: unknown;
}

export interface DeployOneOptions {
  readonly client: InferenceClient;
  readonly output: Output;
  readonly dryRun: boolean;
}

export async function deployOne(
  deployment: WantedDeployment,
  { client, output, dryRun }: DeployOneOptions,
): Promise<DeployedOne> {
  const text = wantedToText(deployment);
  if (deployment.splitWish === undefined) return { ...(await client.grid.deploy(text, { dryRun })), gate: '' };
  const progress = startProgress(output, `split of ${deployment.model}`);
  let prepared: PreparedSplit;
  try {
    prepared = await client.grid.prepareSplit(text, {
      dryRun,
      onProgress: (share, words) => progress.update(share, words),
    });
  } finally {
    progress.stop();
  }
  const { refusal, stages, verdict: gate, verificationJson } = prepared;
  const verification = verificationJson === '' ? {} : { verification: JSON.parse(verificationJson) as unknown };
  if (refusal !== '') {
    const nothing = { name: deployment.name, differences: [], applied: false };
    return { ...nothing, refusals: [refusal], placements: stages, gate, ...verification };
  }
  return { ...(await client.grid.deploy(prepared.deploymentJson, { dryRun })), gate, ...verification };
}

/** With the content of plan files where the deployments name them. */
async function withPlans(data: unknown, file: string, program: Program): Promise<unknown> {
  if (typeof data !== 'object' || data === null) return data;
  const fields = data as Readonly<Record<string, unknown>>;
  if (Array.isArray(fields['deployments'])) {
    const deployments: unknown[] = [];
    for (const one of fields['deployments']) deployments.push(await withPlans(one, file, program));
    return { ...fields, deployments };
  }
  const split = fields['split'];
  if (typeof split !== 'object' || split === null) return data;
  const plan = (split as Readonly<Record<string, unknown>>)['plan'];
  if (typeof plan !== 'string') return data;
  return { ...fields, split: { ...split, plan: await program.readYamlFile(resolve(dirname(file), plan)) } };
}
