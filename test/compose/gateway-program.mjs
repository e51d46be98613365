// A gateway process for tests: answers each connection with its own process id, and speaks with whoever started it as
// src/compose/gateways.ts does.
import { createServer } from 'node:net';

const server = createServer((socket) => socket.end(String(process.pid)));
process.on('message', (order) => {
  if (order.type === 'start') {
    if (order.config.name.endsWith('broken')) {
      process.send({ type: 'failed', reason: 'it is broken' });
      return;
    }
    server.listen(order.config.grpcPort, '127.0.0.1', () => {
      process.send({ type: 'ready', ports: { grpc: server.address().port, http: 0 } });
    });
  } else process.exit();
});
process.on('disconnect', () => process.exit());
process.send({ type: 'awake' });
