/**
 * The public door of the package: a host as a library, and the types that a program around it meets. Clients enter by
 * `intarsia/client`, tests by `intarsia/testing`.
 */
export { completeConfig, type HostConfig, type HostOptions } from './config.js';
export { startHost, type Host } from './compose/host.js';
export { IntarsiaError, errorCatalogue, type ErrorCode } from './core/errors.js';
export type { DeviceDescriptor } from './core/device.js';
export type { Receipt } from './core/receipt.js';
