import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PrometheusMetrics } from '#adapters/prometheus/prometheus-metrics.js';
import { histogramMetric, metric } from '#core/metric-catalogue.js';

async function linesOf(metrics: PrometheusMetrics, prefix: string): Promise<string[]> {
  const text = await metrics.exposition();
  return text.split('\n').filter((line) => line.startsWith(prefix));
}

describe('PrometheusMetrics', () => {
  it('shows counters and gauges in the text format under Triton names', async () => {
    const metrics = new PrometheusMetrics();
    metrics.counter(metric('nv_inference_request_success')).bind('digits', '1').add(3);
    metrics.gauge(metric('nv_cpu_utilization')).bind().set(0.25);
    const text = await metrics.exposition();
    expect(text).toContain('# TYPE nv_inference_request_success counter');
    expect(text).toContain('nv_inference_request_success{model="digits",version="1"} 3');
    expect(text).toContain('nv_cpu_utilization 0.25');
    expect(metrics.contentType).toContain('version=0.0.4');
  });

  it('gives the same series for the same labels, also through a second definition', async () => {
    const metrics = new PrometheusMetrics();
    metrics.counter(metric('nv_inference_count')).bind('a', '1').add(1);
    metrics.counter(metric('nv_inference_count')).bind('a', '1').add(2);
    expect(await linesOf(metrics, 'nv_inference_count')).toEqual(['nv_inference_count{model="a",version="1"} 3']);
  });

  it('refuses a second definition of the same name with another type or other labels', () => {
    const metrics = new PrometheusMetrics();
    metrics.counter({ name: 'x_total', help: 'x', labels: ['a'] });
    expect(() => metrics.gauge({ name: 'x_total', help: 'x', labels: ['a'] })).toThrow(/x_total is a counter/);
    expect(() => metrics.counter({ name: 'x_total', help: 'x', labels: ['b'] })).toThrow(/labels \[a\]/);
    expect(() => metrics.counter({ name: 'x_total', help: 'x', labels: ['a'] }).bind()).toThrow(/0 values were given/);
  });

  it('counts under the label value other once a family holds as many series as it may', async () => {
    const metrics = new PrometheusMetrics({ seriesMax: 2 });
    const family = metrics.counter({ name: 'x_total', help: 'x', labels: ['user'] });
    for (const user of ['a', 'b', 'c', 'd', 'c']) family.bind(user).add(1);
    expect(await linesOf(metrics, 'x_total')).toEqual([
      'x_total{user="a"} 1',
      'x_total{user="b"} 1',
      'x_total{user="other"} 3',
    ]);
  });

  it('forgets a removed series and starts it again from zero', async () => {
    const metrics = new PrometheusMetrics();
    const family = metrics.counter({ name: 'x_total', help: 'x', labels: ['model'] });
    family.bind('a').add(5);
    family.remove('a');
    expect(await linesOf(metrics, 'x_total')).toEqual([]);
    family.bind('a').add(1);
    expect(await linesOf(metrics, 'x_total')).toEqual(['x_total{model="a"} 1']);
  });

  it('never lets a counter fall', async () => {
    const metrics = new PrometheusMetrics();
    const counter = metrics.counter({ name: 'x_total', help: 'x', labels: [] }).bind();
    counter.add(2);
    counter.add(-5);
    counter.add(Number.NaN);
    expect(await linesOf(metrics, 'x_total')).toEqual(['x_total 2']);
  });

  it('collects before each exposition', async () => {
    const metrics = new PrometheusMetrics();
    const gauge = metrics.gauge({ name: 'x', help: 'x', labels: [] }).bind();
    let reads = 0;
    metrics.onCollect(() => gauge.set((reads += 1)));
    await metrics.exposition();
    expect(await linesOf(metrics, 'x ')).toEqual(['x 2']);
  });

  it('escapes label values that would break the format', async () => {
    const metrics = new PrometheusMetrics();
    metrics
      .gauge({ name: 'x', help: 'two\nlines', labels: ['l'] })
      .bind('a"b\\c\nd')
      .set(1);
    const text = await metrics.exposition();
    expect(text).toContain('# HELP x two\\nlines');
    expect(text).toContain('x{l="a\\"b\\\\c\\nd"} 1');
  });

  it('shows histograms cumulatively, equal to counting each bound by hand', async () => {
    const { buckets } = histogramMetric('intarsia_batch_items');
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 0, max: 400 }), { maxLength: 50 }), async (values) => {
        const metrics = new PrometheusMetrics();
        const histogram = metrics.histogram(histogramMetric('intarsia_batch_items')).bind('m', '1', 'cpu:0');
        for (const value of values) histogram.observe(value);
        const labels = 'model="m",version="1",device="cpu:0"';
        const wanted = [
          ...buckets.map(
            (le) => `intarsia_batch_items_bucket{${labels},le="${le}"} ${values.filter((v) => v <= le).length}`,
          ),
          `intarsia_batch_items_bucket{${labels},le="+Inf"} ${values.length}`,
          `intarsia_batch_items_sum{${labels}} ${values.reduce((sum, v) => sum + v, 0)}`,
          `intarsia_batch_items_count{${labels}} ${values.length}`,
        ];
        expect(await linesOf(metrics, 'intarsia_batch_items_')).toEqual(wanted);
      }),
      { numRuns: 50 },
    );
  });

  it('adds figures of the process when asked to', async () => {
    const metrics = new PrometheusMetrics({ processMetrics: true });
    expect(await metrics.exposition()).toMatch(/process_resident_memory_bytes \d+/);
  });
});
