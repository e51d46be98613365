/** What links carry and how they fare, as metrics. */
import type { Links } from '#ports/links.js';
import type { Counter, Metrics } from '#ports/metrics.js';
import type { GrpcLinks } from './links.js';

/** Read before each exposition. Peers that have left keep no series. */
export function exportLinkMetrics(metrics: Metrics, links: Pick<GrpcLinks, 'counts'> & Pick<Links, 'peers'>): void {
  const counter = (name: string, help: string): Counter => metrics.counter({ name, help, labels: [] }).bind();
  const counters = {
    sentMessages: counter('intarsia_link_sent_messages_total', 'Messages given to links to other hosts.'),
    sentBytes: counter('intarsia_link_sent_bytes_total', 'Bytes of messages given to links.'),
    receivedMessages: counter('intarsia_link_received_messages_total', 'Messages that links have brought.'),
    receivedBytes: counter('intarsia_link_received_bytes_total', 'Bytes of messages that links have brought.'),
    lost: counter('intarsia_link_lost_total', 'Links that were lost.'),
    refused: counter('intarsia_link_refused_total', 'Attempts to open a link that failed or were refused.'),
  };
  const gauge = (name: string, help: string) => metrics.gauge({ name, help, labels: ['host'] });
  const gauges = {
    up: gauge('intarsia_link_up', '1 while the link to the host is up, else 0.'),
    messages: gauge('intarsia_link_queue_messages', 'Messages to the host that are not taken there yet.'),
    bytes: gauge('intarsia_link_queue_bytes', 'Bytes to the host that are not taken there yet.'),
    roundTrip: gauge('intarsia_link_round_trip_seconds', 'Round trip to the host, smoothed.'),
  };
  const told: Record<keyof typeof counters, number> = {
    sentMessages: 0,
    sentBytes: 0,
    receivedMessages: 0,
    receivedBytes: 0,
    lost: 0,
    refused: 0,
  };
  let known = new Set<string>();
  metrics.onCollect(() => {
    for (const name of Object.keys(counters) as (keyof typeof counters)[]) {
      counters[name].add(links.counts[name] - told[name]);
      told[name] = links.counts[name];
    }
    const present = new Set<string>();
    for (const { host, state, queuedMessages, queuedBytes, roundTripMs } of links.peers()) {
      present.add(host);
      gauges.up.bind(host).set(state === 'up' ? 1 : 0);
      gauges.messages.bind(host).set(queuedMessages);
      gauges.bytes.bind(host).set(queuedBytes);
      if (roundTripMs !== undefined) gauges.roundTrip.bind(host).set(roundTripMs / 1_000);
    }
    for (const host of known) if (!present.has(host)) for (const each of Object.values(gauges)) each.remove(host);
    known = present;
  });
}
