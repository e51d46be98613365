/** What happens between the stages of split models, as plain numbers; and as metrics, read when somebody scrapes. */
import type { ModelName } from '#core/ids.js';
import { metric } from '#core/metric-catalogue.js';
import type { PackedTensor } from '#core/split/activation-codec.js';
import { readShardName, type SplitSpec } from '#core/split/split-spec.js';
import { StagePace } from '#core/split/stage-pace.js';
import type { Counter, Metrics } from '#ports/metrics.js';

/** Stages told apart in metrics; those behind count as the last of them. */
const stagesShown = 64;
/** Shards whose times are kept; the oldest is forgotten. */
const pacesMax = 1_000;

interface StagePaceRow {
  readonly model: ModelName;
  readonly split: string;
  readonly shard: number;
  readonly device: string;
  /** In the engine, for an item. */
  readonly expectedMs: number;
  readonly observedMs: number;
}

export class StageCounts {
  /** Stages that this host's devices have run. */
  runs = 0;
  /** Requests for a stage that was under way here already, asked for by a host that is lost. */
  joined = 0;
  /** Bytes that are kept until next stages have answered. */
  keptBytes = 0;
  /** Bytes that compression spared between stages. */
  sparedBytes = 0;
  /** Largest error of a packed value so far, as a share of the largest magnitude of its tensor. */
  packingErrorMax = 0;
  /** How long the stages on this host take, by the name and device of the shard. */
  readonly paces = new Map<string, StagePace>();
  /** Runs of a stage that were sent again, by stage. */
  readonly reruns = new Map<number, number>();
  /** Of which shards are wanted here, by id: plans among them say what is expected of their stages. */
  splits: ReadonlyMap<string, SplitSpec> = new Map();

  reran(stage: number): void {
    const shown = Math.min(stage, stagesShown - 1);
    this.reruns.set(shown, (this.reruns.get(shown) ?? 0) + 1);
  }

  /** A shard ran on a device: milliseconds in the engine for an item. */
  ran(shard: string, device: string, ms: number): void {
    this.runs += 1;
    const key = `${shard} ${device}`;
    let pace = this.paces.get(key);
    if (pace === undefined) {
      if (this.paces.size >= pacesMax) this.paces.delete([...this.paces.keys()][0] ?? '');
      this.paces.set(key, (pace = new StagePace()));
    }
    pace.add(ms);
  }

  /** The paces that are known, by shard and device. What a plan said is expected in place of a stage's own first runs. */
  rows(): readonly StagePaceRow[] {
    return [...this.paces].flatMap(([key, { now }]) => {
      const [name = '', device = ''] = key.split(' ');
      const piece = readShardName(name);
      if (piece === undefined || now === undefined) return [];
      const { model, split, shard } = piece;
      const expectedMs = this.splits.get(split)?.shards[shard]?.plannedMs ?? now.expectedMs;
      return [{ model, split, shard, device, expectedMs, observedMs: now.observedMs }];
    });
  }

  packed({ data, packing }: PackedTensor): void {
    if (packing === undefined) return;
    this.sparedBytes += packing.kind === 'fp16' ? data.byteLength : data.byteLength * 3;
    if (packing.maxMagnitude === 0) return;
    this.packingErrorMax = Math.max(this.packingErrorMax, packing.maxError / packing.maxMagnitude);
  }
}

export function exportStageMetrics(metrics: Metrics, counts: Readonly<StageCounts>): void {
  const rows: readonly { readonly counter: Counter; readonly read: () => number; told: number }[] = [
    { counter: metrics.counter(metric('intarsia_stage_runs_total')).bind(), read: () => counts.runs, told: 0 },
    {
      counter: metrics.counter(metric('intarsia_activation_bytes_spared_total')).bind(),
      read: () => counts.sparedBytes,
      told: 0,
    },
  ];
  const reruns = metrics.counter(metric('intarsia_stage_reruns_total'));
  const rerunRows = new Map<number, { readonly counter: Counter; told: number }>();
  const ratio = metrics.gauge(metric('intarsia_stage_ratio'));
  const kept = metrics.gauge(metric('intarsia_activation_kept_bytes')).bind();
  const error = metrics.gauge(metric('intarsia_activation_packing_error')).bind();
  metrics.onCollect(() => {
    for (const row of rows) {
      const now = row.read();
      row.counter.add(now - row.told);
      row.told = now;
    }
    for (const [stage, now] of counts.reruns) {
      let row = rerunRows.get(stage);
      if (row === undefined) rerunRows.set(stage, (row = { counter: reruns.bind(String(stage + 1)), told: 0 }));
      row.counter.add(now - row.told);
      row.told = now;
    }
    for (const { model, shard, device, expectedMs, observedMs } of counts.rows()) {
      ratio.bind(model, String(shard + 1), device).set(observedMs / expectedMs);
    }
    kept.set(counts.keptBytes);
    error.set(counts.packingErrorMax);
  });
}
