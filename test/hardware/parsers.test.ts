import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseSystemProfilerGpus } from '#core/device-discovery-apple.js';
import {
  countOfCpuList,
  parseCgroupPaths,
  parseCpuInfo,
  parseCpuMax,
  parseMemInfo,
  parseMemoryLimit,
  pathAndAncestors,
} from '#core/device-discovery-cpu.js';
import {
  parseMigInstances,
  parseNvidiaCsv,
  parseNvidiaInformation,
  parseNvidiaXml,
} from '#core/device-discovery-nvidia.js';
import { parseKfdMemoryBank, parseKfdProperties, parsePciSlot, pciName } from '#core/device-discovery-pci.js';
import { parseLdconfig, parseOnnxBackends } from '#core/device-discovery-providers.js';

/** The parts of `nvidia-smi -q -x` that are read, in their places among others. */
const nvidiaReport = `<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log>
	<timestamp>Mon Jul 15 13:41:56 2024</timestamp>
	<driver_version>555.42.06</driver_version>
	<cuda_version>12.5</cuda_version>
	<attached_gpus>1</attached_gpus>
	<gpu id="00000000:01:00.0">
		<product_name>NVIDIA L4</product_name>
		<product_brand>NVIDIA</product_brand>
		<mig_mode>
			<current_mig>N/A</current_mig>
			<pending_mig>N/A</pending_mig>
		</mig_mode>
		<mig_devices>
			None
		</mig_devices>
		<uuid>GPU-00000000-5a60-059e-348d-000000000001</uuid>
		<pci>
			<pci_bus>01</pci_bus>
			<pci_device_id>27B810DE</pci_device_id>
			<pci_bus_id>00000000:01:00.0</pci_bus_id>
		</pci>
		<fb_memory_usage>
			<total>23034 MiB</total>
			<reserved>434 MiB</reserved>
			<used>1 MiB</used>
			<free>22601 MiB</free>
		</fb_memory_usage>
		<bar1_memory_usage>
			<total>32768 MiB</total>
			<used>1 MiB</used>
		</bar1_memory_usage>
		<utilization>
			<gpu_util>2 %</gpu_util>
			<memory_util>0 %</memory_util>
		</utilization>
		<temperature>
			<gpu_temp>45 C</gpu_temp>
			<gpu_temp_tlimit>39 C</gpu_temp_tlimit>
		</temperature>
		<gpu_power_readings>
			<power_state>P0</power_state>
			<power_draw>27.22 W</power_draw>
			<current_power_limit>72.00 W</current_power_limit>
		</gpu_power_readings>
		<module_power_readings>
			<power_draw>N/A</power_draw>
		</module_power_readings>
	</gpu>
</nvidia_smi_log>
`;

describe('parsers of NVIDIA texts', () => {
  const gpu = {
    index: 0,
    uuid: 'GPU-00000000-5a60-059e-348d-000000000001',
    name: 'NVIDIA L4',
    bus: '0000:01:00.0',
    driver: '555.42.06',
    memoryTotalBytes: 23_034 * 2 ** 20,
    memoryUsedBytes: 2 ** 20,
    utilization: 0.02,
    temperatureCelsius: 45,
    powerWatts: 27.22,
    powerLimitWatts: 72,
    migEnabled: false,
  };

  it('read the same from the XML report as from the table, with and without units', () => {
    const header =
      'index, uuid, name, pci.bus_id, driver_version, memory.total [MiB], memory.used [MiB], utilization.gpu [%], temperature.gpu, power.draw [W], power.limit [W], mig.mode.current';
    const cells = (unit: (text: string) => string): string =>
      `0, ${gpu.uuid}, NVIDIA L4, 00000000:01:00.0, 555.42.06, 23034${unit(' MiB')}, 1${unit(' MiB')}, 2${unit(' %')}, 45, 27.22${unit(' W')}, 72.00${unit(' W')}, [N/A]`;
    expect(parseNvidiaXml(nvidiaReport)).toEqual([gpu]);
    expect(parseNvidiaCsv(`${header}\n${cells(() => '')}\n`)).toEqual([gpu]);
    expect(parseNvidiaCsv(`${header}\n${cells((unit) => unit)}\n`)).toEqual([gpu]);
  });

  it('leave out what the driver does not tell', () => {
    const [bare] = parseNvidiaCsv(
      'index, uuid, name, power.draw [W], utilization.gpu [%]\n3, GPU-1, NVIDIA X, [N/A], [Not Supported]\n',
    );
    expect(bare).toEqual({ index: 3, uuid: 'GPU-1', name: 'NVIDIA X', bus: '', driver: '', migEnabled: false });
    expect(parseNvidiaCsv('No devices were found\n')).toEqual([]);
    expect(parseNvidiaInformation('')).toBeUndefined();
  });

  it('know the slices of each GPU', () => {
    expect(
      parseMigInstances(
        'GPU 0: NVIDIA A30 (UUID: GPU-a)\n  MIG 2g.12gb     Device  0: (UUID: MIG-x)\n  MIG 1g.6gb+me  Device  1: (UUID: MIG-y)\nGPU 1: NVIDIA A30 (UUID: GPU-b)\n',
      ),
    ).toEqual([
      { gpuUuid: 'GPU-a', uuid: 'MIG-x', index: 0, slice: '2g.12gb', memoryTotalBytes: 12 * 2 ** 30 },
      { gpuUuid: 'GPU-a', uuid: 'MIG-y', index: 1, slice: '1g.6gb+me', memoryTotalBytes: 6 * 2 ** 30 },
    ]);
  });
});

describe('parsers of Linux texts', () => {
  it('read limits of control groups, and none where there is none', () => {
    expect(parseMemoryLimit('max\n')).toBeUndefined();
    expect(parseMemoryLimit('9223372036854771712\n')).toBeUndefined();
    expect(parseMemoryLimit('')).toBeUndefined();
    expect(parseMemoryLimit('1073741824\n')).toBe(2 ** 30);
    expect(parseCpuMax('max 100000\n')).toBeUndefined();
    expect(parseCpuMax('150000 100000\n')).toBe(1.5);
    expect(parseCpuMax('50000\n')).toBe(0.5);
  });

  it('read the paths of control groups of both versions, and never leave the mount', () => {
    expect(parseCgroupPaths('12:memory:/a\n7:cpu,cpuacct:/b\n0::/c\n')).toEqual({
      memory: '/a',
      cpu: '/b',
      unified: '/c',
    });
    expect(pathAndAncestors('/a/b')).toEqual(['/a/b', '/a', '']);
    expect(pathAndAncestors('/')).toEqual(['']);
    expect(pathAndAncestors('/../../x')).toEqual(['/x', '']);
  });

  it('count lists of processors', () => {
    expect(countOfCpuList('0-3,8,10-11\n')).toBe(7);
    expect(countOfCpuList('0')).toBe(1);
    expect(countOfCpuList('')).toBe(0);
    expect(countOfCpuList('x')).toBe(0);
  });

  it('count processors of any layout of sockets, cores and threads', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 8 }),
        fc.integer({ min: 1, max: 2 }),
        (sockets, cores, threads) => {
          const blocks: string[] = [];
          for (let thread = 0; thread < threads; thread += 1) {
            for (let socket = 0; socket < sockets; socket += 1) {
              for (let core = 0; core < cores; core += 1) {
                blocks.push(
                  `processor\t: ${blocks.length}\nvendor_id\t: AuthenticAMD\nmodel name\t: X\nphysical id\t: ${socket}\ncore id\t\t: ${core}\nflags\t\t: avx2\n`,
                );
              }
            }
          }
          expect(parseCpuInfo(blocks.join('\n'))).toEqual({
            model: 'X',
            vendor: 'AMD',
            extensions: ['avx2'],
            sockets,
            physicalCores: sockets * cores,
            logicalCores: sockets * cores * threads,
          });
        },
      ),
      { numRuns: 50 },
    );
  });

  it('name AMD architectures from version numbers', () => {
    const node = (version: number): string =>
      `simd_count 4\nsimd_per_cu 4\ngfx_target_version ${version}\nlocation_id 1280\n`;
    expect(
      [90010, 90402, 120001, 110003, 90008].map((version) => parseKfdProperties(node(version))?.architecture),
    ).toEqual(['gfx90a', 'gfx942', 'gfx1201', 'gfx1103', 'gfx908']);
    expect(parseKfdProperties(node(90010))?.bus).toBe('0000:05:00.0');
    expect(parseKfdProperties('simd_count 0\n')).toBeUndefined();
    expect(parseKfdMemoryBank('heap_type 0\nsize_in_bytes 5\n')).toBe(0);
    expect(parsePciSlot('DRIVER=xe\nPCI_SLOT_NAME=0000:00:02.0\n')).toBe('0000:00:02.0');
    expect(pciName('0x1002', '0x9999', 'GPU')).toBe('AMD GPU 0x1002:0x9999');
  });
});

describe('all parsers', () => {
  const parsers: Readonly<Record<string, (text: string) => unknown>> = {
    parseCgroupPaths,
    parseCpuInfo,
    parseCpuMax,
    parseKfdMemoryBank,
    parseKfdProperties,
    parseLdconfig,
    parseMemInfo,
    parseMemoryLimit,
    parseMigInstances,
    parseNvidiaCsv,
    parseNvidiaInformation,
    parseNvidiaXml,
    parseOnnxBackends,
    parsePciSlot,
    parseSystemProfilerGpus,
  };
  const words = fc.constantFrom(
    'processor\t: 0',
    'flags : avx2',
    'MemTotal: 1 kB',
    '<gpu>',
    '</gpu>',
    '<uuid>x</uuid>',
    'index, uuid',
    '0, GPU-1',
    '\n',
    '::',
    '[',
    '{"name":1}',
    'null',
    '0::/a',
    'simd_count 4',
    'Model: x',
    '  MIG 1g.5gb Device 0: (UUID: x)',
    '{"SPDisplaysDataType":[{"sppci_model":1},{"_name":"a"}]}',
  );
  it.each(Object.entries(parsers))('%s survives any text', (_name, parse) => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.array(words, { maxLength: 12 }).map((parts) => parts.join('\n')),
        ),
        (text) => {
          parse(text);
        },
      ),
      { numRuns: 200 },
    );
  });
});
