/**
 * How much of the fault tests is run: `npm test` takes a few that last seconds, `npm run test:cluster` all of them, with the
 * times of the failure model, against the embedded store and against etcd.
 */
import { isWithoutEtcd } from '../store/real-stores.js';
import type { StoreKind } from './cluster.js';

export const isFull = process.env['INTARSIA_CLUSTER'] === 'full';
export const fullOnly = isFull ? '' : ' (skipped: npm run test:cluster runs it)';
export const shortOnly = isFull ? '' : ' (the long ones are skipped: npm run test:cluster runs them)';

/** Stores to run a fault against. */
export const stores: readonly StoreKind[] = isWithoutEtcd || !isFull ? ['embedded'] : ['embedded', 'etcd'];
export const storesNote = isWithoutEtcd && isFull ? ' (etcd left out: its program is not installed)' : '';
