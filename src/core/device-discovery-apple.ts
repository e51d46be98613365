/** Reads macOS' `system_profiler -json SPDisplaysDataType`. */

export interface AppleGpu {
  readonly name: string;
  readonly vendor: string;
  readonly cores?: number;
  readonly metal: string;
  /** Own memory of discrete GPUs; Apple silicon shares the system's. */
  readonly memoryBytes?: number;
}

/** GPUs in the report; none for text that is not such a report. */
export function parseSystemProfilerGpus(json: string): readonly AppleGpu[] {
  let report: unknown;
  try {
    report = JSON.parse(json);
  } catch {
    return [];
  }
  if (!isRecord(report) || !Array.isArray(report['SPDisplaysDataType'])) return [];
  return report['SPDisplaysDataType'].filter(isRecord).flatMap((gpu) => {
    const name = stringOf(gpu['sppci_model']) ?? stringOf(gpu['_name']);
    if (name === undefined) return [];
    const cores = Number(stringOf(gpu['sppci_cores']) ?? Number.NaN);
    const memory = /^(\d+(?:\.\d+)?) (MB|GB)$/.exec(stringOf(gpu['spdisplays_vram']) ?? '');
    return [
      {
        name,
        vendor: (stringOf(gpu['spdisplays_vendor']) ?? '').replace('sppci_vendor_', '') || 'unknown',
        ...(Number.isInteger(cores) ? { cores } : {}),
        metal: (
          stringOf(gpu['spdisplays_mtlgpufamilysupport']) ??
          stringOf(gpu['spdisplays_metal']) ??
          'unknown'
        ).replace('spdisplays_', ''),
        ...(memory === null ? {} : { memoryBytes: Number(memory[1]) * (memory[2] === 'GB' ? 2 ** 30 : 2 ** 20) }),
      },
    ];
  });
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function stringOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}
