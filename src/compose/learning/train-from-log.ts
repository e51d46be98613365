/**
 * `intarsia train --from-log`: a deployed policy and a decision log in, a tuned policy with its manifest out. The same log, policy,
 * options, seed and backend give the same bytes.
 */
import { createHash } from 'node:crypto';
import { basename, resolve } from 'node:path';
import { loadTensorflow } from '#adapters/tfjs/tensorflow.js';
import { readYamlFile } from '#adapters/yaml/read-yaml.js';
import type { LogTrainReport, LogTrainRequest } from '#cli/train-report.js';
import { intarsiaError } from '#core/errors.js';
import { RandomStream } from '#core/random.js';
import { dispatchSchemaOf, encodePolicy, readPolicy } from '#core/scheduling/policy-file.js';
import { episodesOfLog, type LoggedEpisode } from '#policies/learning/logged-decisions.js';
import { readNumbers } from '#policies/learning/plan-file.js';
import { logTuningDefaults, tuneFromLog } from '#policies/learning/tune-from-log.js';
import { readDecisions } from '../decision-log/log-trace.js';
import { version } from '../version.js';
import { readContender } from './contenders.js';
import { RunFolder, runFiles } from './run-folder.js';

/** @throws NOT_FOUND (log, policy), INVALID_ARGUMENT (no learned policy), FAILED_PRECONDITION (the log says too little), ALREADY_EXISTS (the folder). */
export async function trainFromLog(
  request: LogTrainRequest,
  onEpoch: (epoch: number, epochs: number, loss: number) => void,
): Promise<LogTrainReport> {
  const { player } = await readContender(request.policy, 'deadline-cap');
  if (player.kind !== 'policy') {
    throw intarsiaError('INVALID_ARGUMENT', `${request.policy}: a log tunes learned policies; this is none`);
  }
  const deployed = readPolicy(player.bytes);
  const config = request.configPath === '' ? undefined : await readYamlFile(request.configPath);
  const planned = readNumbers(logTuningDefaults, config, request.configPath);
  const options = request.seed === undefined ? planned : { ...planned, seed: request.seed };
  const { data, damaged } = await readDecisions(request.folder);
  const schema = dispatchSchemaOf(deployed);
  const episodes = episodesOfLog(data, schema);
  const { tf, backend } = await loadTensorflow(request.backend);
  tf.enableProdMode();
  const tools = { tf, random: new RandomStream(options.seed) };
  const tuned = tuneFromLog(tools, deployed, episodes, options, ({ epoch, loss }) =>
    onEpoch(epoch, options.epochs, loss),
  );
  const { layers, ranges, ...figures } = tuned;
  const made = {
    intarsia: version,
    schema,
    backend,
    tensorflow: tf.version['tfjs'],
    from: { policy: deployed.name, sha256: sha256(player.bytes) },
    log: { name: basename(resolve(request.folder)), runs: episodes.length, sha256: digestOf(episodes) },
    options,
    ...figures,
  };
  const policy = encodePolicy({
    ...{ name: nameOf(deployed.name, options.seed), decides: 'dispatch', fallback: deployed.fallback, ranges },
    network: { layers, activation: 'tanh' },
    notes: { ...deployed.notes, 'tuning.manifest': JSON.stringify(made) },
  });
  const policySha256 = sha256(policy);
  const run = await RunFolder.create(resolve(request.out));
  await run.write(runFiles.policy, policy);
  await run.write(runFiles.manifest, `${JSON.stringify({ ...made, policySha256 }, undefined, 2)}\n`);
  return { folder: run.path, policyPath: run.at(runFiles.policy), policySha256, backend, damaged, ...figures };
}

/** Tuned once more it keeps one ending. */
function nameOf(name: string, seed: number): string {
  return `${name.replace(/-log\d+$/u, '').slice(0, 80)}-log${seed}`;
}

/** Of all that is learned from, whatever files it lay in. */
function digestOf(episodes: readonly LoggedEpisode[]): string {
  const hash = createHash('sha256');
  for (const { run, decisions, outcomes, propensities, outcomeOf } of episodes) {
    hash.update(run);
    for (const { buffer, byteOffset, byteLength } of [
      ...[decisions.rows, decisions.rowStarts, decisions.choices, decisions.atMs, propensities, outcomeOf],
      ...[outcomes.arrivedMs, outcomes.doneMs, outcomes.cost, outcomes.energy, outcomes.missed, outcomes.lateness],
    ]) {
      hash.update(new Uint8Array(buffer, byteOffset, byteLength));
    }
  }
  return hash.digest('hex');
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
