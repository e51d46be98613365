/**
 * Power of the processor by its energy counters (RAPL, /sys/class/powercap): Intel since Sandy Bridge, AMD since Zen.
 * Since kernel 5.10 the counters are readable by root only; virtual machines have none. Then power is estimated.
 */
import { wattsBetween } from '#core/device-discovery-power.js';
import type { EnergyReading } from '#core/device-discovery-power.js';
import type { Clock } from '#ports/clock.js';
import type { SystemReader } from './system-reader.js';

const folder = '/sys/class/powercap';

export interface RaplDomain {
  /** `package-0`: one a socket. */
  readonly name: string;
  readonly path: string;
  readonly rangeMicrojoules: number;
}

/** The counters of whole sockets that we may read, and a sentence about them. */
export async function findRapl(
  reader: SystemReader,
): Promise<{ readonly domains: readonly RaplDomain[]; readonly detail: string }> {
  const domains: RaplDomain[] = [];
  let denied = false;
  for (const entry of await reader.list(folder)) {
    // `intel-rapl:0` is a socket; `intel-rapl:0:1` a part of it, counted in the socket already.
    if (!/^intel-rapl:\d+$/.test(entry)) continue;
    const path = `${folder}/${entry}`;
    const name = (await reader.readText(`${path}/name`))?.trim() ?? '';
    if (!name.startsWith('package')) continue;
    if ((await reader.access(`${path}/energy_uj`)) === 'denied') {
      denied = true;
      continue;
    }
    const range = Number((await reader.readText(`${path}/max_energy_range_uj`))?.trim() ?? Number.NaN);
    if (range > 0) domains.push({ name, path, rangeMicrojoules: range });
  }
  if (domains.length > 0) return { domains, detail: `RAPL: ${domains.map(({ name }) => name).join(', ')}` };
  return {
    domains,
    detail: denied
      ? 'estimated: RAPL counters are readable by root only (allow it with: chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj)'
      : 'estimated: no RAPL counters here (virtual machine, or a processor without them)',
  };
}

/** Watts of all sockets together, between one call and the next. */
export class RaplMeter {
  readonly #reader: SystemReader;
  readonly #clock: Clock;
  readonly #domains: readonly RaplDomain[];
  readonly #last = new Map<string, EnergyReading>();

  constructor(reader: SystemReader, clock: Clock, domains: readonly RaplDomain[]) {
    this.#reader = reader;
    this.#clock = clock;
    this.#domains = domains;
  }

  /** Mean watts since the last call; undefined at the first call, and when a counter could not be read. */
  async read(): Promise<number | undefined> {
    let watts: number | undefined;
    for (const { path, rangeMicrojoules } of this.#domains) {
      const text = await this.#reader.readText(`${path}/energy_uj`);
      const microjoules = Number(text?.trim() || Number.NaN);
      if (Number.isNaN(microjoules)) return undefined;
      const reading = { microjoules, atMs: this.#clock.nowMs() };
      const last = this.#last.get(path);
      this.#last.set(path, reading);
      const of = last === undefined ? undefined : wattsBetween(last, reading, rangeMicrojoules);
      if (of === undefined) continue;
      watts = (watts ?? 0) + of;
    }
    return watts;
  }
}
