/**
 * Drives the TCP echo: `--window` messages of `--bytes` under way at once. Prints `{"messagesPerSecond":N}` after
 * `--seconds`, a second of warm-up left out.
 */
import { connect } from 'node:net';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    port: { type: 'string' },
    bytes: { type: 'string', default: '602112' },
    window: { type: 'string', default: '16' },
    seconds: { type: 'string', default: '3' },
  },
});
const bytes = Number(values.bytes);
const message = Buffer.alloc(bytes, 1);
const socket = connect({ port: Number(values.port), host: '127.0.0.1', noDelay: true });
const warmUpMs = 1000;
const endMs = warmUpMs + Number(values.seconds) * 1000;
let received = 0;
let counted = 0;
let startMs = 0;
let countFromMs = 0;

socket.on('connect', () => {
  startMs = performance.now();
  for (let index = 0; index < Number(values.window); index += 1) socket.write(message);
});
socket.on('data', (chunk) => {
  received += chunk.byteLength;
  while (received >= bytes) {
    received -= bytes;
    const elapsedMs = performance.now() - startMs;
    if (elapsedMs >= endMs) {
      const seconds = (performance.now() - countFromMs) / 1000;
      process.stdout.write(`${JSON.stringify({ messagesPerSecond: counted / seconds })}\n`);
      process.exit(0);
    }
    if (elapsedMs >= warmUpMs) {
      if (countFromMs === 0) countFromMs = performance.now();
      else counted += 1;
    }
    socket.write(message);
  }
});
