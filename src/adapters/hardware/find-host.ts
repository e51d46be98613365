/** The processor, the memory, and how much of both this process may use. */
import {
  coresOfQuota,
  countOfCpuList,
  parseCgroupPaths,
  parseCpuInfo,
  parseCpuMax,
  parseMemInfo,
  parseMemoryLimit,
  pathAndAncestors,
} from '#core/device-discovery-cpu.js';
import { findRapl } from './rapl-meter.js';
import type { CgroupPaths, CpuFacts } from '#core/device-discovery-cpu.js';
import type { HostFacts } from '#core/device-discovery.js';
import type { SystemReader } from './system-reader.js';

const cgroupMount = '/sys/fs/cgroup';

export async function findHost(reader: SystemReader): Promise<HostFacts> {
  const [cpuInfo, memInfo, status, cgroup, rapl] = await Promise.all([
    reader.readText('/proc/cpuinfo'),
    reader.readText('/proc/meminfo'),
    reader.readText('/proc/self/status'),
    reader.readText('/proc/self/cgroup'),
    findRapl(reader),
  ]);
  const cpu = parseCpuInfo(cpuInfo ?? '') ?? (await cpuWithoutProc(reader));
  const memory = parseMemInfo(memInfo ?? '') ?? {
    totalBytes: reader.basics.totalBytes,
    availableBytes: reader.basics.freeBytes,
  };
  const paths = parseCgroupPaths(cgroup ?? '');
  const [memoryLimit, quota] = await Promise.all([memoryLimitOf(reader, paths), coreLimitOf(reader, paths)]);
  const allowed = countOfCpuList(/^Cpus_allowed_list:\s*(\S+)/m.exec(status ?? '')?.[1] ?? '');
  const byAffinity = allowed > 0 && allowed < cpu.logicalCores ? allowed : cpu.logicalCores;
  const limitedByQuota = quota !== undefined && quota < byAffinity;
  return {
    hostname: reader.hostname,
    platform: reader.platform,
    arch: reader.arch,
    kernel: reader.kernel,
    node: process.version,
    cpu,
    // Part of a core would only be throttled: whole ones, at least one.
    usableCores: Math.max(1, limitedByQuota ? Math.floor(quota) : byAffinity),
    coresLimit: limitedByQuota ? 'control group' : byAffinity < cpu.logicalCores ? 'affinity' : 'all',
    memory,
    usableMemoryBytes: Math.min(memory.totalBytes, memoryLimit ?? memory.totalBytes),
    memoryLimit: memoryLimit !== undefined && memoryLimit < memory.totalBytes ? 'control group' : 'machine',
    powerMeter: { available: rapl.domains.length > 0, detail: rapl.detail },
  };
}

/** macOS and Windows: what the runtime knows, and on macOS what sysctl adds. */
async function cpuWithoutProc(reader: SystemReader): Promise<CpuFacts> {
  const { cpuModel, logicalCores } = reader.basics;
  const cores =
    reader.platform === 'darwin' ? await reader.run('/usr/sbin/sysctl', ['-n', 'hw.physicalcpu'], 2000) : undefined;
  const physicalCores = cores?.ok === true ? Number(cores.stdout.trim()) : logicalCores;
  return {
    model: cpuModel.trim(),
    vendor: /apple/i.test(cpuModel)
      ? 'Apple'
      : /intel/i.test(cpuModel)
        ? 'Intel'
        : /amd/i.test(cpuModel)
          ? 'AMD'
          : 'unknown',
    extensions: reader.arch === 'arm64' ? ['asimd'] : [],
    sockets: 1,
    physicalCores: physicalCores > 0 ? physicalCores : logicalCores,
    logicalCores,
  };
}

/** The smallest limit of this process's group and its ancestors, in either version of control groups. */
async function memoryLimitOf(reader: SystemReader, paths: CgroupPaths): Promise<number | undefined> {
  const files = [
    ...filesOf('', paths.unified, 'memory.max'),
    ...filesOf('/unified', paths.unified, 'memory.max'),
    ...filesOf('/memory', paths.memory, 'memory.limit_in_bytes'),
  ];
  return smallest(files.map(async (file) => parseMemoryLimit((await reader.readText(file)) ?? '')));
}

async function coreLimitOf(reader: SystemReader, paths: CgroupPaths): Promise<number | undefined> {
  const unified = filesOf('', paths.unified, 'cpu.max').map(async (file) => {
    const text = await reader.readText(file);
    return text === undefined ? undefined : parseCpuMax(text);
  });
  const legacy = filesOf('/cpu', paths.cpu, 'cpu.cfs_quota_us').map(async (file) => {
    const [quota, period] = await Promise.all([
      reader.readText(file),
      reader.readText(file.replace(/cfs_quota_us$/, 'cfs_period_us')),
    ]);
    return coresOfQuota(Number(quota ?? '-1'), Number(period ?? '100000'));
  });
  return smallest([...unified, ...legacy]);
}

function filesOf(controller: string, path: string | undefined, file: string): readonly string[] {
  return path === undefined
    ? []
    : pathAndAncestors(path).map((folder) => `${cgroupMount}${controller}${folder}/${file}`);
}

async function smallest(limits: readonly Promise<number | undefined>[]): Promise<number | undefined> {
  const known = (await Promise.all(limits)).filter((limit) => limit !== undefined);
  return known.length === 0 ? undefined : Math.min(...known);
}
