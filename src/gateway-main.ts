/** A gateway process of a host with `--gateways N`: it has no devices, shares the host's ports for clients, and only routes. */
import { serveAsGateway } from './compose/gateways.js';
import { startHost } from './compose/host.js';

serveAsGateway({ serve: (config) => startHost(config) });
