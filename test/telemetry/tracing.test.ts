import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openOtlpTracing } from '#adapters/opentelemetry/otlp-tracing.js';
import { parseTraceparent } from '#adapters/opentelemetry/traceparent.js';
import { silentLog } from '#ports/log.js';
import { noSpan, noTracing } from '#ports/tracing.js';
import type { AddressInfo } from 'node:net';
import type { Server } from 'node:http';
import type { Random } from '#ports/random.js';

interface Collected {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
  readonly attributes: readonly { readonly key: string; readonly value: Readonly<Record<string, unknown>> }[];
  readonly status: { readonly code?: number };
}

/** A collector: keeps the spans it is sent, in OTLP's JSON. */
class Collector {
  readonly spans: Collected[] = [];
  readonly paths: string[] = [];
  resource: unknown;
  readonly server: Server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      this.paths.push(`${request.method} ${request.url}`);
      const body = JSON.parse(Buffer.concat(chunks).toString('utf8')) as {
        resourceSpans: { resource: unknown; scopeSpans: { spans: Collected[] }[] }[];
      };
      for (const { resource, scopeSpans } of body.resourceSpans) {
        this.resource = resource;
        for (const { spans } of scopeSpans) this.spans.push(...spans);
      }
      response.setHeader('content-type', 'application/json').end('{}');
    });
  });

  async listen(): Promise<string> {
    this.server.listen(0, '127.0.0.1');
    await once(this.server, 'listening');
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }
}

const always = (value: number): Random => ({ next: () => value, below: () => 0, stream: () => always(value) });
const host = { name: 'h1', version: '0.1.0' };
const clientParent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';

describe('OTLP tracing', () => {
  let collector: Collector;
  let endpoint: string;
  beforeEach(async () => {
    collector = new Collector();
    endpoint = await collector.listen();
  });
  afterEach(async () => {
    collector.server.close();
    collector.server.closeAllConnections();
    await once(collector.server, 'close').catch(() => {});
  });

  it('sends spans with parents, attributes and outcome to a collector', async () => {
    const tracing = await openOtlpTracing({ endpoint, share: 1, random: always(0.5), log: silentLog, host });
    const span = tracing.start('ModelInfer', clientParent);
    expect(span.recording).toBe(true);
    span.set({ 'intarsia.model': 'digits', 'intarsia.items': 2 });
    const child = span.child('compute');
    child.end();
    const { traceparent } = span;
    span.end('QUEUE_FULL');
    span.set({ late: true });
    span.end();
    await tracing.close();
    expect(collector.paths).toEqual(['POST /v1/traces']);
    const [inner, outer] = collector.spans;
    expect(outer).toMatchObject({
      name: 'ModelInfer',
      kind: 2,
      traceId: '0af7651916cd43dd8448eb211c80319c',
      parentSpanId: 'b7ad6b7169203331',
      status: { code: 2 },
    });
    expect(traceparent).toBe(`00-${outer!.traceId}-${outer!.spanId}-01`);
    expect(inner).toMatchObject({ name: 'compute', traceId: outer!.traceId, parentSpanId: outer!.spanId });
    expect(outer!.attributes).toEqual(
      expect.arrayContaining([
        { key: 'intarsia.model', value: { stringValue: 'digits' } },
        { key: 'intarsia.items', value: { intValue: 2 } },
        { key: 'error.type', value: { stringValue: 'QUEUE_FULL' } },
      ]),
    );
    expect(JSON.stringify(outer!.attributes)).not.toContain('late');
    expect(JSON.stringify(collector.resource)).toContain('"intarsia"');
  });

  it('follows the decision of the client, and otherwise samples the configured share', async () => {
    const tracing = await openOtlpTracing({
      endpoint: `${endpoint}/`,
      share: 0.01,
      random: always(0.5),
      log: silentLog,
      host,
    });
    expect(tracing.start('a', undefined)).toBe(noSpan);
    expect(tracing.start('a', 'nonsense')).toBe(noSpan);
    expect(tracing.start('a', clientParent.replace(/-01$/, '-00'))).toBe(noSpan);
    const followed = tracing.start('a', clientParent);
    expect(followed.traceparent).toContain('0af7651916cd43dd8448eb211c80319c');
    followed.end();
    await tracing.close();
    const rare = await openOtlpTracing({ endpoint, share: 0.01, random: always(0.009), log: silentLog, host });
    rare.start('b', undefined).end();
    await rare.close();
    expect(collector.spans.map(({ name, parentSpanId }) => [name, parentSpanId ?? ''])).toEqual([
      ['a', 'b7ad6b7169203331'],
      ['b', ''],
    ]);
  });

  it('drops spans beyond its bound instead of keeping them', async () => {
    const tracing = await openOtlpTracing({
      endpoint,
      share: 1,
      random: always(0),
      log: silentLog,
      host,
      queueSpansMax: 8,
      delayMs: 60_000,
    });
    for (let number = 0; number < 100; number += 1) tracing.start(`s${number}`, undefined).end();
    await tracing.close();
    expect(collector.spans.length).toBeGreaterThan(0);
    expect(collector.spans.length).toBeLessThanOrEqual(24);
  });

  it('survives a collector that is away, and says so once', async () => {
    const warnings: string[] = [];
    const log = { ...silentLog, warn: (message: string) => warnings.push(message) };
    collector.server.close();
    const tracing = await openOtlpTracing({
      endpoint: 'http://127.0.0.1:1',
      share: 1,
      random: always(0),
      log,
      host,
      delayMs: 60_000,
    });
    tracing.start('lost', undefined).end();
    await tracing.close();
    expect(warnings).toEqual(['traces cannot be delivered']);
  });
});

describe('no tracing', () => {
  it('costs nothing without an endpoint: OpenTelemetry is not even loaded', async () => {
    expect(await openOtlpTracing({ endpoint: '', share: 1, random: always(0), log: silentLog, host })).toBe(noTracing);
    expect(noTracing.start('x', clientParent)).toBe(noSpan);
    expect(noSpan.child('y')).toBe(noSpan);
    // Everything of the package is imported as a type, or when an endpoint is there.
    const source = readFileSync(new URL('../../src/adapters/opentelemetry/otlp-tracing.ts', import.meta.url), 'utf8');
    const imports = [...source.matchAll(/^import (type )?.*'@opentelemetry\/.*';$/gm)];
    expect(imports.length).toBeGreaterThan(0);
    expect(imports.filter(([, isType]) => isType === undefined)).toEqual([]);
  });
});

describe('parseTraceparent', () => {
  it.each([
    [clientParent, { traceId: '0af7651916cd43dd8448eb211c80319c', spanId: 'b7ad6b7169203331', sampled: true }],
    [
      clientParent.replace(/-01$/, '-00'),
      { traceId: '0af7651916cd43dd8448eb211c80319c', spanId: 'b7ad6b7169203331', sampled: false },
    ],
    [
      `cc${clientParent.slice(2)}-future`,
      { traceId: '0af7651916cd43dd8448eb211c80319c', spanId: 'b7ad6b7169203331', sampled: true },
    ],
    [`${clientParent}-more`, undefined],
    [`ff${clientParent.slice(2)}`, undefined],
    [`00-${'0'.repeat(32)}-b7ad6b7169203331-01`, undefined],
    [`00-0af7651916cd43dd8448eb211c80319c-${'0'.repeat(16)}-01`, undefined],
    [clientParent.toUpperCase(), undefined],
    ['', undefined],
  ])('reads %s', (header, expected) => {
    expect(parseTraceparent(header)).toEqual(expected);
  });
});
