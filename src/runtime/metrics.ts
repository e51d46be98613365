/** The actor system's metrics: read when somebody collects them, so that counting costs the hot path nothing. */
import { metric } from '#core/metric-catalogue.js';
import type { Counter, Metrics } from '#ports/metrics.js';
import { deadLetterReasons } from './diagnostic-events.js';
import type { Kernel } from './kernel.js';

export function publishActorMetrics(kernel: Kernel, metrics: Metrics): void {
  const deadLetters = metrics.counter(metric('intarsia_actor_dead_letters_total'));
  const counts = [
    follow(metrics.counter(metric('intarsia_actor_messages_total')).bind(), () => kernel.dispatcher.messages),
    follow(metrics.counter(metric('intarsia_actor_failures_total')).bind(), () => kernel.failures),
    follow(metrics.counter(metric('intarsia_actor_restarts_total')).bind(), () => kernel.restarts),
    ...deadLetterReasons.map((reason) => follow(deadLetters.bind(reason), () => kernel.deadLetters.count(reason))),
  ];
  const actors = metrics.gauge(metric('intarsia_actors')).bind();
  const waiting = metrics.gauge(metric('intarsia_actor_mailbox_messages')).bind();
  metrics.onCollect(() => {
    for (const catchUp of counts) catchUp();
    actors.set(kernel.cells.size);
    waiting.set([...kernel.cells.values()].reduce((sum, cell) => sum + cell.mailbox.length, 0));
  });
}

/** Brings a counter up to a total that only grows. */
function follow(counter: Counter, total: () => number): () => void {
  let told = 0;
  return () => {
    const now = total();
    counter.add(now - told);
    told = now;
  };
}
