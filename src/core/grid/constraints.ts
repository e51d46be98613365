/** What a replica, or one shard of it, may ask of its place. */

/** Where a host stands in the order edge, regional, core. */
export type Tier = 'edge' | 'regional' | 'core';

/** Which devices a replica may use. What is absent does not matter. */
export interface PlacementConstraints {
  /** Execution providers, any of. */
  readonly providers?: readonly string[];
  readonly tiers?: readonly Tier[];
  readonly zones?: readonly string[];
  /** Labels the host must have with these values. */
  readonly labels?: Readonly<Record<string, string>>;
  readonly hosts?: readonly string[];
  /** Device ids, such as `cpu:0`. */
  readonly devices?: readonly string[];
  /** `never`: not on spot hosts. Default `allowed`. */
  readonly spot?: 'allowed' | 'never' | 'only';
}
