/**
 * Messages of the failure detector: one a host. Probes come from and go to the detectors of other hosts; what it finds out
 * goes to this host's membership, which publishes it with the view.
 */
import type { ProbeMessage } from '#core/grid/host-load.js';

export type { ProbeMessage } from '#core/grid/host-load.js';

export type DetectorMessage = ProbeMessage;
