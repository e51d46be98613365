/** Reads what Linux tells about processors, memory and the limits of control groups. Pure parsers of their texts. */

export interface CpuFacts {
  readonly model: string;
  readonly vendor: string;
  /** Vector and matrix extensions that inference engines use, in the order of `knownExtensions`. */
  readonly extensions: readonly string[];
  readonly sockets: number;
  readonly physicalCores: number;
  readonly logicalCores: number;
}

/** Kernel's names on x86 and arm64, weakest first. */
const knownExtensions = [
  'sse4_2',
  'avx',
  'f16c',
  'fma',
  'avx2',
  'avx_vnni',
  'avx512f',
  'avx512_vnni',
  'avx512_bf16',
  'avx512_fp16',
  'amx_tile',
  'amx_int8',
  'amx_bf16',
  'amx_fp16',
  'asimd',
  'asimdhp',
  'asimddp',
  'i8mm',
  'bf16',
  'sve',
  'sve2',
  'sme',
] as const;

/** Arm's cores by implementer and part number, as far as inference hosts use them. */
const armCores: Readonly<Record<string, string>> = {
  '0x41/0xd08': 'Arm Cortex-A72',
  '0x41/0xd0b': 'Arm Cortex-A76',
  '0x41/0xd0c': 'Arm Neoverse N1',
  '0x41/0xd40': 'Arm Neoverse V1',
  '0x41/0xd42': 'Arm Cortex-A78AE',
  '0x41/0xd49': 'Arm Neoverse N2',
  '0x41/0xd4f': 'Arm Neoverse V2',
  '0x41/0xd84': 'Arm Neoverse V3',
  '0x4e/0x004': 'NVIDIA Carmel',
  '0xc0/0xac3': 'Ampere-1',
  '0xc0/0xac4': 'Ampere-1a',
};

/** /proc/cpuinfo of x86 and arm64. Undefined when it names no processor. */
export function parseCpuInfo(text: string): CpuFacts | undefined {
  const blocks = text.split(/\n\s*\n/).map(fieldsOf);
  const processors = blocks.filter((block) => block.has('processor'));
  const [first] = processors;
  if (first === undefined) return undefined;
  // Boards such as the Raspberry Pi put their own name in a last block.
  const board = blocks.find((block) => !block.has('processor') && block.has('Model'))?.get('Model');
  const flags = new Set((first.get('flags') ?? first.get('Features') ?? '').split(/\s+/));
  const implementer = first.get('CPU implementer');
  const armName =
    implementer === undefined
      ? undefined
      : (armCores[`${implementer}/${first.get('CPU part') ?? ''}`] ??
        `Arm core ${implementer}/${first.get('CPU part') ?? '?'}`);
  const sockets = new Set(processors.map((block) => block.get('physical id') ?? '0'));
  const cores = new Set(
    processors.map(
      (block) => `${block.get('physical id') ?? '0'}/${block.get('core id') ?? block.get('processor') ?? ''}`,
    ),
  );
  return {
    model: first.get('model name') ?? board ?? armName ?? 'unknown processor',
    vendor: vendorOf(first.get('vendor_id'), implementer),
    extensions: knownExtensions.filter((extension) => flags.has(extension)),
    sockets: sockets.size,
    physicalCores: cores.size,
    logicalCores: processors.length,
  };
}

function vendorOf(vendorId: string | undefined, implementer: string | undefined): string {
  if (vendorId === 'GenuineIntel') return 'Intel';
  if (vendorId === 'AuthenticAMD') return 'AMD';
  if (implementer !== undefined) return 'Arm';
  return vendorId ?? 'unknown';
}

function fieldsOf(block: string): ReadonlyMap<string, string> {
  const fields = new Map<string, string>();
  for (const line of block.split('\n')) {
    const colon = line.indexOf(':');
    if (colon > 0) fields.set(line.slice(0, colon).trim(), line.slice(colon + 1).trim());
  }
  return fields;
}

export interface MemoryFacts {
  readonly totalBytes: number;
  readonly availableBytes: number;
}

/** /proc/meminfo; undefined when it lacks the total. */
export function parseMemInfo(text: string): MemoryFacts | undefined {
  const bytesOf = (name: string): number | undefined => {
    const match = new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text);
    return match?.[1] === undefined ? undefined : Number(match[1]) * 1024;
  };
  const totalBytes = bytesOf('MemTotal');
  if (totalBytes === undefined) return undefined;
  return { totalBytes, availableBytes: bytesOf('MemAvailable') ?? bytesOf('MemFree') ?? totalBytes };
}

/** Number of processors in a list such as `0-3,8,10-11`; 0 for an empty or malformed one. */
export function countOfCpuList(list: string): number {
  let count = 0;
  for (const part of list.trim().split(',')) {
    const match = /^(\d+)(?:-(\d+))?$/.exec(part);
    if (match?.[1] === undefined) return 0;
    count += match[2] === undefined ? 1 : Math.max(0, Number(match[2]) - Number(match[1]) + 1);
  }
  return count;
}

/** Folders of this process's control groups, relative to the mount; from /proc/self/cgroup. */
export interface CgroupPaths {
  /** Unified hierarchy (version 2), if the process is in one. */
  readonly unified?: string;
  readonly memory?: string;
  readonly cpu?: string;
}

export function parseCgroupPaths(text: string): CgroupPaths {
  const paths: { unified?: string; memory?: string; cpu?: string } = {};
  for (const line of text.split('\n')) {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (controllers === undefined || path === undefined) continue;
    const names = controllers.split(',');
    if (controllers === '') paths.unified = path;
    if (names.includes('memory')) paths.memory = path;
    if (names.includes('cpu')) paths.cpu = path;
  }
  return paths;
}

/** The path itself and its ancestors, nearest first: `/a/b` → /a/b, /a, and the root as the empty text. */
export function pathAndAncestors(path: string): readonly string[] {
  const parts = path.split('/').filter((part) => part !== '' && part !== '..');
  return Array.from({ length: parts.length + 1 }, (_, up) =>
    parts
      .slice(0, parts.length - up)
      .map((part) => `/${part}`)
      .join(''),
  );
}

/** memory.max or memory.limit_in_bytes; undefined when there is no limit (version 1 writes a number near 2^63). */
export function parseMemoryLimit(text: string): number | undefined {
  const bytes = Number(text.trim());
  return text.trim() === '' || !Number.isFinite(bytes) || bytes >= 2 ** 60 ? undefined : bytes;
}

/** cpu.max (`200000 100000`, `max 100000`): cores the group may use; undefined without a limit. */
export function parseCpuMax(text: string): number | undefined {
  const [quota, period] = text.trim().split(/\s+/);
  return coresOfQuota(Number(quota), Number(period ?? '100000'));
}

/** Version 1: cpu.cfs_quota_us (−1 without a limit) and cpu.cfs_period_us. */
export function coresOfQuota(quotaUs: number, periodUs: number): number | undefined {
  return quotaUs > 0 && periodUs > 0 ? quotaUs / periodUs : undefined;
}
