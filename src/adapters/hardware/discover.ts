/**
 * Finds the devices of this machine: processor, memory and their limits, accelerators of every vendor, and what ONNX
 * Runtime can offer on them. Everything is read through a SystemReader; every command is bounded in time, and a source
 * that fails becomes a line of the report instead of an error.
 */
import { candidateDevices, makeReport } from '#core/device-discovery.js';
import { findAccelerators } from './find-accelerators.js';
import { findHost } from './find-host.js';
import { lookUpProviders } from './look-up-providers.js';
import { findProviders } from '#core/device-discovery-providers.js';
import { messageOf } from '#core/errors.js';
import type { DeviceOptions, DiscoveryReport, MachineFacts, ProbeOutcome } from '#core/device-discovery.js';
import type { DeviceDescriptor } from '#core/device.js';
import type { SystemReader } from './system-reader.js';

export interface DiscoveryOptions extends DeviceOptions {
  readonly reader: SystemReader;
  /**
   * Tries a small run on an accelerator, in an executor process of its own: never in this one. Asked once per device
   * that is neither cpu nor wasm. Without it accelerators whose libraries are all there are believed.
   */
  readonly probe?: (device: DeviceDescriptor) => Promise<ProbeOutcome>;
}

/** Never rejects because of what the machine is like. A second or less where nothing has to be tried. */
export async function discoverDevices(options: DiscoveryOptions): Promise<DiscoveryReport> {
  const { reader } = options;
  const [host, found] = await Promise.all([findHost(reader), findAccelerators(reader)]);
  const providerFacts = await lookUpProviders(
    reader,
    found.accelerators.some(({ vendor }) => vendor === 'NVIDIA'),
  );
  const facts: MachineFacts = {
    host,
    accelerators: found.accelerators,
    troubles: found.troubles,
    providers: findProviders(providerFacts),
    vulkanManifests: providerFacts.vulkanManifests,
  };
  const candidates = candidateDevices(facts, options);
  const outcomes = new Map<string, ProbeOutcome>();
  const { probe } = options;
  if (probe !== undefined) {
    const accelerators = candidates.filter(({ kind }) => kind !== 'cpu' && kind !== 'wasm');
    // One after another: two trials on one GPU at once would disturb each other.
    for (const device of accelerators) {
      outcomes.set(
        device.id,
        await probe(device).catch((error: unknown): ProbeOutcome => ({ ok: false, reason: messageOf(error) })),
      );
    }
  }
  return makeReport(facts, candidates, outcomes, options.profiles);
}
