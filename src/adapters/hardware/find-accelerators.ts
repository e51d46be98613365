/** Accelerators of every vendor, as their drivers and the kernel tell; each source in a function of its own. */
import { parseSystemProfilerGpus } from '#core/device-discovery-apple.js';
import {
  nvidiaQueryFields,
  parseMigInstances,
  parseNvidiaCsv,
  parseNvidiaInformation,
  parseNvidiaXml,
} from '#core/device-discovery-nvidia.js';
import {
  parseKfdMemoryBank,
  parseKfdProperties,
  parsePciSlot,
  parseUeventDriver,
  pciName,
  pciVendors,
} from '#core/device-discovery-pci.js';
import { visibleGpus } from './visible-gpus.js';
import type { FoundAccelerator, UnusableThing } from '#core/device-discovery.js';
import type { NvidiaGpu } from '#core/device-discovery-nvidia.js';
import type { SystemReader } from './system-reader.js';

/** A driver that wakes its GPU up can take seconds; one that hangs must not hang the host. */
const nvidiaSmiMsMax = 20_000;
const systemProfilerMsMax = 15_000;

export interface FoundAccelerators {
  readonly accelerators: readonly FoundAccelerator[];
  readonly troubles: readonly UnusableThing[];
}

export async function findAccelerators(reader: SystemReader): Promise<FoundAccelerators> {
  const sources = await Promise.all([
    findNvidia(reader),
    findAmd(reader),
    findDrm(reader),
    findNpus(reader),
    findApple(reader),
  ]);
  const [nvidia, amd, drm, npus, apple] = sources;
  // The kernel's graphics devices repeat what vendors' drivers told in more words: those win, by PCI address.
  const known = new Set([...nvidia.accelerators, ...amd.accelerators].map(({ bus }) => bus));
  const others = drm.accelerators.filter(({ bus }) => !known.has(bus));
  return {
    accelerators: [...nvidia.accelerators, ...amd.accelerators, ...others, ...npus.accelerators, ...apple.accelerators],
    troubles: sources.flatMap(({ troubles }) => troubles),
  };
}

const blank = { uuid: '', driver: '', blocked: '', blockedRemedy: '' } as const;

async function findNvidia(reader: SystemReader): Promise<FoundAccelerators> {
  const answer = await reader.run(
    'nvidia-smi',
    [`--query-gpu=${nvidiaQueryFields.join()}`, '--format=csv,nounits'],
    nvidiaSmiMsMax,
  );
  if (answer.ok) return { accelerators: await ofGpus(reader, parseNvidiaCsv(answer.stdout)), troubles: [] };
  if (/not a valid field/i.test(answer.reason)) {
    const report = await reader.run('nvidia-smi', ['-q', '-x'], nvidiaSmiMsMax);
    if (report.ok) return { accelerators: await ofGpus(reader, parseNvidiaXml(report.stdout)), troubles: [] };
  }
  // nvidia-smi is missing or fails: the kernel module may still name the GPUs.
  const accelerators: FoundAccelerator[] = [];
  for (const bus of await reader.list('/proc/driver/nvidia/gpus')) {
    const gpu = parseNvidiaInformation((await reader.readText(`/proc/driver/nvidia/gpus/${bus}/information`)) ?? '');
    if (gpu === undefined) continue;
    accelerators.push({
      ...blank,
      kind: 'gpu',
      vendor: 'NVIDIA',
      name: gpu.name,
      bus: gpu.bus,
      uuid: gpu.uuid,
      driver: gpu.driver,
      facts: {},
    });
  }
  const silent = answer.reason === 'absent' && accelerators.length === 0;
  return {
    accelerators,
    troubles: silent
      ? []
      : [
          {
            name: 'nvidia-smi',
            reason:
              answer.reason === 'absent'
                ? 'not installed: memory, load, power and temperature of NVIDIA GPUs are unknown'
                : `failed: ${answer.reason}`,
            remedy:
              answer.reason === 'absent'
                ? "install the driver's utilities (nvidia-utils), or mount them into the container (NVIDIA_DRIVER_CAPABILITIES=compute,utility)"
                : 'check that the NVIDIA kernel module and driver are of one version (reboot after an update)',
          },
        ],
  };
}

async function ofGpus(reader: SystemReader, gpus: readonly NvidiaGpu[]): Promise<readonly FoundAccelerator[]> {
  const visible = visibleGpus(gpus, reader.env['CUDA_VISIBLE_DEVICES']);
  const list = gpus.some(({ migEnabled }) => migEnabled)
    ? await reader.run('nvidia-smi', ['-L'], nvidiaSmiMsMax)
    : undefined;
  const slices = list?.ok === true ? parseMigInstances(list.stdout) : [];
  return gpus.flatMap((gpu): readonly FoundAccelerator[] => {
    const whole: FoundAccelerator = {
      kind: 'gpu',
      vendor: 'NVIDIA',
      name: gpu.name,
      bus: gpu.bus,
      uuid: gpu.uuid,
      driver: gpu.driver,
      ...(gpu.memoryTotalBytes === undefined ? {} : { memoryBytes: gpu.memoryTotalBytes }),
      ...(gpu.powerLimitWatts === undefined ? {} : { powerLimitWatts: gpu.powerLimitWatts }),
      blocked: visible(gpu) ? '' : 'hidden by CUDA_VISIBLE_DEVICES',
      blockedRemedy: visible(gpu) ? '' : 'name it there, or unset the variable',
      facts: { index: gpu.index },
    };
    if (!gpu.migEnabled) return [whole];
    const own = slices.filter(({ gpuUuid }) => gpuUuid === gpu.uuid);
    if (own.length === 0) {
      return [
        {
          ...whole,
          blocked: 'in MIG mode without an instance: nothing can run on it',
          blockedRemedy: 'create instances (nvidia-smi mig -cgi … -C), or leave MIG mode (nvidia-smi -mig 0)',
        },
      ];
    }
    return own.map(({ slice, index, uuid, memoryTotalBytes }) => {
      const { powerLimitWatts: _shared, ...rest } = whole;
      return {
        ...rest,
        name: `${gpu.name} MIG ${slice}`,
        bus: `${gpu.bus}/mig${index}`,
        uuid,
        memoryBytes: memoryTotalBytes,
      };
    });
  });
}

async function findAmd(reader: SystemReader): Promise<FoundAccelerators> {
  const root = '/sys/class/kfd/kfd/topology/nodes';
  const accelerators: FoundAccelerator[] = [];
  for (const node of await reader.list(root)) {
    const gpu = parseKfdProperties((await reader.readText(`${root}/${node}/properties`)) ?? '');
    if (gpu === undefined) continue;
    let memoryBytes = 0;
    for (const bank of await reader.list(`${root}/${node}/mem_banks`)) {
      memoryBytes += parseKfdMemoryBank((await reader.readText(`${root}/${node}/mem_banks/${bank}/properties`)) ?? '');
    }
    if (memoryBytes === 0) {
      const vram = await reader.readText(`/sys/class/drm/renderD${gpu.renderMinor}/device/mem_info_vram_total`);
      memoryBytes = Number(vram?.trim() ?? 0);
    }
    accelerators.push({
      ...blank,
      kind: 'gpu',
      vendor: pciVendors[gpu.vendor] ?? 'AMD',
      name: pciName(gpu.vendor, gpu.device, 'GPU'),
      bus: gpu.bus,
      driver: 'amdgpu',
      ...(memoryBytes > 0 ? { memoryBytes } : {}),
      facts: { architecture: gpu.architecture, computeUnits: gpu.computeUnits, kfdNode: Number(node) },
    });
  }
  return { accelerators, troubles: [] };
}

/** Graphics devices of the kernel: Intel's, AMD's without compute support, NVIDIA's without NVIDIA's driver. */
async function findDrm(reader: SystemReader): Promise<FoundAccelerators> {
  const accelerators: FoundAccelerator[] = [];
  for (const card of await reader.list('/sys/class/drm')) {
    if (!/^card\d+$/.test(card)) continue;
    const device = `/sys/class/drm/${card}/device`;
    const [vendor, number, uevent, vram, i915Mhz, xeMhz] = await Promise.all(
      ['vendor', 'device', 'uevent', 'mem_info_vram_total', '../gt_max_freq_mhz', 'tile0/gt0/freq0/max_freq'].map(
        (file) =>
          reader.readText(file.startsWith('../') ? `/sys/class/drm/${card}/${file.slice(3)}` : `${device}/${file}`),
      ),
    );
    const id = vendor?.trim() ?? '';
    // Virtual displays (QEMU, VMware, ASPEED's management chip) compute nothing.
    if (pciVendors[id] === undefined) continue;
    const driver = parseUeventDriver(uevent ?? '');
    const memory = Number(vram?.trim() ?? 0);
    const mhz = Number((i915Mhz ?? xeMhz)?.trim() ?? 0);
    const nouveau = id === '0x10de';
    accelerators.push({
      ...blank,
      kind: 'gpu',
      vendor: pciVendors[id],
      name: pciName(id, number?.trim() ?? '', 'GPU'),
      bus: parsePciSlot(uevent ?? ''),
      driver,
      ...(memory > 0 ? { memoryBytes: memory } : {}),
      blocked: nouveau ? `its driver is ${driver === '' ? 'missing' : driver}, which cannot compute` : '',
      blockedRemedy: nouveau ? "install NVIDIA's driver" : '',
      facts: { card, ...(mhz > 0 ? { maximumMhz: mhz } : {}) },
    });
  }
  return { accelerators, troubles: [] };
}

/** Neural processors and accelerator cards of the kernel's `accel` class: Intel NPU and Gaudi, Qualcomm Cloud AI. */
async function findNpus(reader: SystemReader): Promise<FoundAccelerators> {
  const accelerators: FoundAccelerator[] = [];
  for (const entry of await reader.list('/sys/class/accel')) {
    if (!/^accel\d+$/.test(entry)) continue;
    const device = `/sys/class/accel/${entry}/device`;
    const [vendor, number, uevent] = await Promise.all(
      ['vendor', 'device', 'uevent'].map((file) => reader.readText(`${device}/${file}`)),
    );
    const id = vendor?.trim() ?? '';
    const node = await reader.access(`/dev/accel/${entry}`);
    accelerators.push({
      ...blank,
      kind: 'npu',
      vendor: pciVendors[id] ?? 'unknown',
      name: pciName(id, number?.trim() ?? '', 'NPU'),
      bus: parsePciSlot(uevent ?? ''),
      driver: parseUeventDriver(uevent ?? ''),
      blocked: node === 'denied' ? `found, but /dev/accel/${entry} may not be opened by this user` : '',
      blockedRemedy: node === 'denied' ? 'add the user to the group render' : '',
      facts: { node: `/dev/accel/${entry}`, nodeAccess: node },
    });
  }
  return { accelerators, troubles: [] };
}

async function findApple(reader: SystemReader): Promise<FoundAccelerators> {
  if (reader.platform !== 'darwin') return { accelerators: [], troubles: [] };
  const answer = await reader.run('/usr/sbin/system_profiler', ['-json', 'SPDisplaysDataType'], systemProfilerMsMax);
  if (!answer.ok) {
    return {
      accelerators: [],
      troubles: [
        { name: 'system_profiler', reason: `failed: ${answer.reason}`, remedy: 'none; GPUs keep unknown names' },
      ],
    };
  }
  return {
    accelerators: parseSystemProfilerGpus(answer.stdout).map((gpu) => ({
      ...blank,
      kind: 'gpu',
      vendor: gpu.vendor,
      name: gpu.name,
      bus: '',
      driver: 'Metal',
      memoryBytes: gpu.memoryBytes ?? reader.basics.totalBytes,
      facts: {
        metal: gpu.metal,
        ...(gpu.cores === undefined ? {} : { cores: gpu.cores }),
        memoryShared: gpu.memoryBytes === undefined,
      },
    })),
    troubles: [],
  };
}
