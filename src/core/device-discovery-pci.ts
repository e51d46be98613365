/**
 * Names of accelerators by PCI vendor and device number, and AMD's kfd topology: for silicon whose driver tells numbers
 * rather than names.
 */

export const pciVendors: Readonly<Record<string, string>> = {
  '0x10de': 'NVIDIA',
  '0x1002': 'AMD',
  '0x8086': 'Intel',
  '0x1da3': 'Intel',
  '0x17cb': 'Qualcomm',
};

const pciNames: Readonly<Record<string, string>> = {
  '0x1002:0x7408': 'AMD Instinct MI250X',
  '0x1002:0x740c': 'AMD Instinct MI250X',
  '0x1002:0x740f': 'AMD Instinct MI210',
  '0x1002:0x74a0': 'AMD Instinct MI300A',
  '0x1002:0x74a1': 'AMD Instinct MI300X',
  '0x1002:0x74a2': 'AMD Instinct MI308X',
  '0x1002:0x74a5': 'AMD Instinct MI325X',
  '0x1002:0x75a0': 'AMD Instinct MI350X',
  '0x1002:0x75a3': 'AMD Instinct MI355X',
  '0x8086:0xe20b': 'Intel Arc B580',
  '0x8086:0xe211': 'Intel Arc Pro B60',
  '0x8086:0x56a0': 'Intel Arc A770',
  '0x8086:0x64a0': 'Intel Arc 140V (Lunar Lake)',
  '0x8086:0x7d55': 'Intel Arc Graphics (Meteor Lake)',
  '0x8086:0x7d1d': 'Intel NPU (Meteor Lake)',
  '0x8086:0xad1d': 'Intel NPU (Arrow Lake)',
  '0x8086:0x643e': 'Intel NPU 4 (Lunar Lake)',
  '0x8086:0xb03e': 'Intel NPU (Panther Lake)',
  '0x1da3:0x1020': 'Intel Gaudi 2',
  '0x1da3:0x1060': 'Intel Gaudi 3',
  '0x17cb:0xa100': 'Qualcomm Cloud AI 100',
};

/** A name for people; with the numbers when the table does not know it. */
export function pciName(vendor: string, device: string, what: 'GPU' | 'NPU'): string {
  return pciNames[`${vendor}:${device}`] ?? `${pciVendors[vendor] ?? 'unknown'} ${what} ${vendor}:${device}`;
}

/** PCI address in a sysfs uevent file; empty when it has none. */
export function parsePciSlot(uevent: string): string {
  return /^PCI_SLOT_NAME=(.+)$/m.exec(uevent)?.[1]?.trim() ?? '';
}

/** Driver in a sysfs uevent file; empty when none is bound. */
export function parseUeventDriver(uevent: string): string {
  return /^DRIVER=(.+)$/m.exec(uevent)?.[1]?.trim() ?? '';
}

/** A GPU node of /sys/class/kfd/kfd/topology/nodes. */
export interface KfdGpu {
  /** `gfx90a`: what AMD's compilers and libraries ask for. */
  readonly architecture: string;
  readonly vendor: string;
  readonly device: string;
  readonly computeUnits: number;
  readonly bus: string;
  /** Number N of /dev/dri/renderDN. */
  readonly renderMinor: number;
}

/** A node's `properties`; undefined for processors, which have no SIMD units. */
export function parseKfdProperties(text: string): KfdGpu | undefined {
  const property = (name: string): number => Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text)?.[1] ?? '0');
  const simds = property('simd_count');
  if (simds === 0) return undefined;
  const version = property('gfx_target_version');
  const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');
  const location = property('location_id');
  const slot = `${hex(property('domain'), 4)}:${hex((location >> 8) & 0xff, 2)}:${hex((location >> 3) & 0x1f, 2)}.${location & 7}`;
  return {
    architecture: `gfx${Math.floor(version / 10_000)}${Math.floor(version / 100) % 100}${(version % 100).toString(16)}`,
    vendor: `0x${hex(property('vendor_id'), 4)}`,
    device: `0x${hex(property('device_id'), 4)}`,
    computeUnits: simds / Math.max(1, property('simd_per_cu')),
    bus: slot,
    renderMinor: property('drm_render_minor'),
  };
}

/** Bytes of a node's memory bank; 0 unless it is the GPU's own (heap types 1 and 2). */
export function parseKfdMemoryBank(text: string): number {
  const heap = /^heap_type (\d+)$/m.exec(text)?.[1];
  const size = /^size_in_bytes (\d+)$/m.exec(text)?.[1];
  return (heap === '1' || heap === '2') && size !== undefined ? Number(size) : 0;
}
