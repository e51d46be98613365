/**
 * The public test kit: run your actors on virtual time, with ports that remember what happened.
 *
 *     const world = new Simulation({ seed: 7 });
 *     const system = world.system();
 *     const ref = system.spawn('greeter', greeter);
 *     ref.tell({ type: 'greet', name: 'Ada' });
 *     world.clock.runUntilIdle();
 */
export { ManualCancellation } from '#runtime/cancellation.js';
export { actorChannelNames } from '#runtime/diagnostic-events.js';
export type { DeadLetterEvent, DeadLetterReason, LifecycleEvent, MessageEvent } from '#runtime/diagnostic-events.js';
export { entranceOf } from '#runtime/entrance.js';
export { PretendHost, PretendNetwork } from '#sim/pretend-network.js';
export type { PretendNetworkOptions } from '#sim/pretend-network.js';
export type { LinkTimes, NetworkCounts, PairFaults } from '#sim/pretend-packets.js';
export { PretendStore } from '#sim/pretend-store.js';
export type { PretendAbsence, PretendStoreFault, PretendStoreOptions } from '#sim/pretend-store.js';
export { seededRandom } from '#sim/random.js';
export { RecordingDiagnostics } from '#sim/recording-diagnostics.js';
export { RecordingLog } from '#sim/recording-log.js';
export type { LogLine } from '#sim/recording-log.js';
export { RecordingMetrics } from '#sim/recording-metrics.js';
export { Simulation } from '#sim/simulation.js';
export type { SimulationOptions } from '#sim/simulation.js';
export { Trace } from '#sim/trace.js';
export { VirtualClock } from '#sim/virtual-clock.js';
export type { VirtualClockOptions } from '#sim/virtual-clock.js';
