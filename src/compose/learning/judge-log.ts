/** `intarsia evaluate --log`: estimates of learned policies from what a gateway logged, and the simulator held against a log. */
import { basename } from 'node:path';
import { readLogTable } from '#adapters/parquet/read-decision-log.js';
import { readYamlFile } from '#adapters/yaml/read-yaml.js';
import type {
  CalibrationReport,
  CalibrationRequest,
  LogEstimateReport,
  LogEstimateRequest,
} from '#cli/log-evaluation-report.js';
import { intarsiaError } from '#core/errors.js';
import { dispatchSchemaOf, readPolicy } from '#core/scheduling/policy-file.js';
import { SimdScorer } from '#core/scheduling/simd-scorer.js';
import { batchPlayer } from '#policies/learning/batch-player.js';
import { calibrate, calibrationLimits } from '#policies/learning/calibration.js';
import { estimateFromLog } from '#policies/learning/log-estimate.js';
import { episodesOfLog } from '#policies/learning/logged-decisions.js';
import { traceArrivals } from '#sim/fleet/arrivals.js';
import { fleetDispatch } from '#sim/fleet/fleet-dispatch.js';
import { readFleet } from '#sim/fleet/read-fleet.js';
import { runFleet } from '#sim/fleet/run-fleet.js';
import { readDecisions, readLogTrace } from '../decision-log/log-trace.js';
import { fleetPath } from '../fleet-path.js';
import { readProfiles } from '../profiles.js';
import { readContender, readSimulated } from './contenders.js';

/** @throws NOT_FOUND (log, file), INVALID_ARGUMENT (no learned policy), FAILED_PRECONDITION (the log says too little). */
export async function estimatePolicies({ folder, policies }: LogEstimateRequest): Promise<LogEstimateReport> {
  if (policies.length === 0) throw intarsiaError('INVALID_ARGUMENT', 'an estimate needs --policies');
  const scorers = [];
  for (const policy of policies) {
    const { player } = await readContender(policy, 'deadline-cap');
    if (player.kind !== 'policy') {
      throw intarsiaError(
        'INVALID_ARGUMENT',
        `${policy}: a log is asked about learned policies only; rules are simulated`,
      );
    }
    const artifact = readPolicy(player.bytes);
    scorers.push({ policy, schema: dispatchSchemaOf(artifact), scorer: new SimdScorer(artifact.network) });
  }
  const { data, damaged } = await readDecisions(folder);
  return {
    policies: scorers.map(({ policy, schema, scorer }) => ({
      policy,
      ...estimateFromLog(episodesOfLog(data, schema), scorer),
    })),
    damaged,
  };
}

/**
 * Sends the log's requests through a simulated fleet and compares how long answers took.
 * @throws NOT_FOUND (log, fleet), CONFIG_INVALID (fleet, policy), INVALID_ARGUMENT (a model that the fleet has not).
 */
export async function calibrateWithLog(request: CalibrationRequest): Promise<CalibrationReport> {
  const { folder, batching, seed } = request;
  const outcomes = await readLogTable(folder, 'outcomes', ['model', 'outcome', 'duration_ms']);
  const path = await fleetPath(request.fleet);
  const fleet = readFleet(await readYamlFile(path), basename(path), await readProfiles(''));
  const policy = request.policy === '' ? await decider(folder) : request.policy;
  const simulated = await readSimulated(policy, batching);
  const result = await runFleet({
    ...{ fleet, seed },
    arrivals: traceArrivals(fleet, await readLogTrace(folder), { seed }),
    dispatch: fleetDispatch(simulated.make()),
    batching: batchPlayer(simulated.batching, false).make,
  });
  const column = (name: string): readonly unknown[] => outcomes.columns.get(name) ?? [];
  const [models, ends, durations] = [column('model'), column('outcome'), column('duration_ms')];
  const measuredOf = (model: string): Float64Array =>
    Float64Array.from(
      durations.flatMap((ms, row) =>
        ends[row] === 'ok' && (model === '' || models[row] === model) ? [Number(ms)] : [],
      ),
    );
  const simulatedOf = (model: string): Float64Array => {
    const times: number[] = [];
    for (const [index, doneMs] of result.doneMs.entries()) {
      const name = fleet.models[result.arrivals.model[index] ?? 0]?.name;
      const isAnswered = (result.outcome[index] ?? 3) < 2;
      if (isAnswered && (model === '' || name === model)) times.push(doneMs - (result.arrivals.atMs[index] ?? 0));
    }
    return Float64Array.from(times);
  };
  const seen = [...new Set(models as readonly string[])].sort();
  return {
    ...{ fleet: fleet.name, policy, requests: outcomes.rows, limits: calibrationLimits, damaged: outcomes.damaged },
    rows: ['', ...seen].map((model) => ({ model, ...calibrate(measuredOf(model), simulatedOf(model)) })),
  };
}

/** The policy that the log names most. */
async function decider(folder: string): Promise<string> {
  const { columns } = await readLogTable(folder, 'decisions', ['policy']);
  const counts = new Map<string, number>();
  for (const name of (columns.get('policy') ?? []) as readonly string[]) counts.set(name, (counts.get(name) ?? 0) + 1);
  const [most] = [...counts].sort(([, left], [, right]) => right - left);
  if (most !== undefined) return most[0];
  throw intarsiaError('FAILED_PRECONDITION', `decision log ${folder} holds no decisions`, { folder });
}
