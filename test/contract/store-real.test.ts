import { describe, it } from 'vitest';
import { isWithoutEtcd, realWorld } from '../store/real-stores.js';
import { storeContract } from './store.js';

storeContract('embedded store', () => realWorld('embedded'));
if (isWithoutEtcd) {
  describe('store contract: etcd', () => it.skip('etcd is not installed (Debian: etcd-server)'));
} else {
  storeContract('etcd', () => realWorld('etcd'));
}
