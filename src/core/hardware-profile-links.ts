/** What links between devices and hosts can carry: priors for placement, replaced by a measurement when a host joins. */

export interface LinkPrior {
  readonly key: string;
  /** GB/s (10^9 bytes) in one direction, per device where devices share nothing. */
  readonly bandwidthGBs?: number;
  /** Microseconds for the smallest message, one way unless the note says round trip. */
  readonly latencyUs?: { readonly low: number; readonly high: number };
  readonly source: string;
  readonly note: string;
}

const planner = 'A: ai-dynamo/aiconfigurator system files';
const founding = 'founding documents: 200 ms is fatal for interactive use, under 50 ms is asked for at the edge';
const exactly = (us: number): { readonly low: number; readonly high: number } => ({ low: us, high: us });

export const linkPriors: readonly LinkPrior[] = Object.freeze([
  { key: 'nvlink-4', bandwidthGBs: 450, source: planner, note: 'per GPU, one way' },
  { key: 'nvlink-5', bandwidthGBs: 900, source: planner, note: 'per GPU, one way' },
  { key: 'pcie-4-x16', bandwidthGBs: 32, source: planner, note: '' },
  { key: 'pcie-5-x16', bandwidthGBs: 64, source: planner, note: '' },
  { key: 'pcie-6-x16', bandwidthGBs: 128, source: planner, note: '' },
  { key: 'inter-node-cx6', bandwidthGBs: 25, source: planner, note: 'per GPU' },
  { key: 'inter-node-cx7', bandwidthGBs: 50, source: planner, note: 'per GPU' },
  { key: 'inter-node-cx8', bandwidthGBs: 100, source: planner, note: 'per GPU' },
  { key: 'peer-hop', latencyUs: exactly(10), source: planner, note: 'between devices of one node' },
  { key: 'inter-rack', latencyUs: exactly(5), source: planner, note: 'on top of the peer hop' },
  { key: 'cloud-nic-10g', bandwidthGBs: 1.25, source: "Helix's cloud setting", note: '10 Gb/s' },
  { key: 'cloud-disk-1g', bandwidthGBs: 0.125, source: "Helix's cloud setting", note: '1 Gb/s' },
  { key: 'send-receive-floor', latencyUs: { low: 25, high: 35 }, source: 'Vidur', note: 'a message of 2 kB' },
  { key: 'tier-edge', latencyUs: { low: 1000, high: 10_000 }, source: founding, note: 'round trip' },
  { key: 'tier-regional', latencyUs: { low: 10_000, high: 40_000 }, source: founding, note: 'round trip' },
  { key: 'tier-core', latencyUs: { low: 40_000, high: 200_000 }, source: founding, note: 'round trip' },
]);

/** The link under that key. */
export function linkPrior(key: string): LinkPrior | undefined {
  return linkPriors.find((link) => link.key === key);
}
