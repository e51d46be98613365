/** The way to one other host when a link ends in the moment it is there. */
import { expect, it, onTestFinished } from 'vitest';
import { LinkPipe } from '#adapters/grpc/link-pipe.js';
import type { Wire, WireListener } from '#adapters/grpc/link-wire.js';
import { hostId } from '#core/ids.js';
import { startRealHost, waitUntil } from './real-host.js';

/** A call that writes nowhere and ends when it is told to. */
class StillWire implements Wire {
  #listener: WireListener | undefined;
  isCancelled = false;

  listen(listener: WireListener): void {
    this.#listener = listener;
  }
  write(): boolean {
    return true;
  }
  pause(): void {}
  resume(): void {}
  settle(): void {}
  end(): void {}
  cancel(): void {
    this.isCancelled = true;
  }

  break(): void {
    this.#listener?.end(new Error('read ECONNRESET'));
  }
}

const channels = ['control out', 'control in', 'bulk out', 'bulk in'];

it.each(channels)('loses a link of which one channel broke between the handshake and the link: %s', async (broken) => {
  const near = await startRealHost({ name: 'near' });
  onTestFinished(() => near.close());
  const wires = channels.map(() => new StillWire());
  const pipe = (channel: number): LinkPipe => new LinkPipe(wires[channel] as StillWire);
  const link = {
    process: 'far-1',
    version: 1,
    channels: [
      { out: pipe(0), in: pipe(1) },
      { out: pipe(2), in: pipe(3) },
    ],
  };
  const peer = near.links.peer('far');
  // Nobody listens there: whoever asks before the link is up waits for it.
  near.links.setPeer(hostId('far'), '127.0.0.1:1');
  const question = near.system
    .ref<{ replyTo: unknown }>({ host: 'far', path: 'anybody', incarnation: 0 })
    .ask((replyTo) => ({ replyTo }), { deadlineMs: Infinity });
  const refused = expect(question).rejects.toMatchObject({ code: 'UNAVAILABLE', retryable: true });
  wires[channels.indexOf(broken)]?.break();
  peer.open(link);
  await refused;
  expect(peer.view).toMatchObject({ state: 'down', queuedMessages: 0 });
  // What was left of the link is given up.
  await waitUntil('the end of the other channels', () => wires.filter(({ isCancelled }) => isCancelled).length === 3);
});
