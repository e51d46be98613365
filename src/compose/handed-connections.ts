/**
 * Connections that were handed to a process of a cluster which dies before it has taken them.
 *
 * Node's cluster module gives each new connection to a worker and waits for its word. A worker that dies in between says
 * nothing, and the module forgets the connection without closing it: its client would wait until its deadline. Here such
 * connections are remembered, and when the worker has ended, its refusal is given in its place: the module then hands the
 * connection to the next one, and the client notices nothing.
 */
import type { Worker } from 'node:cluster';

/** What the module sends and hears along with its workers (lib/internal/cluster of Node 20 to 24). */
interface ClusterMessage {
  readonly cmd?: unknown;
  readonly act?: unknown;
  readonly seq?: unknown;
  readonly ack?: unknown;
}

const mark = 'NODE_CLUSTER';

/** Call it once, right after the worker was forked. */
export function rescueConnections(worker: Worker): void {
  const child = worker.process;
  const handed = new Set<unknown>();
  const send = child.send.bind(child) as (...of: readonly unknown[]) => boolean;
  Reflect.set(child, 'send', (message: ClusterMessage, ...rest: readonly unknown[]) => {
    if (message.cmd === mark && message.act === 'newconn') handed.add(message.seq);
    return send(message, ...rest);
  });
  child.prependListener('internalMessage', ({ ack }: ClusterMessage) => void handed.delete(ack));
  worker.once('exit', () => {
    for (const ack of handed) child.emit('internalMessage', { cmd: mark, ack, accepted: false });
    handed.clear();
  });
}
