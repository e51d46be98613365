/** Who asked and who pays. */
import type { TenantId } from './ids.js';

export interface Billing {
  readonly tenant: TenantId;
  readonly project: string;
  readonly user: string;
}
