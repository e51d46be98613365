import { describe, expect, it } from 'vitest';
import { discoverDevices } from '#adapters/hardware/discover.js';
import { thisMachine } from '#adapters/hardware/system-reader.js';
import { deviceEnvironment, deviceRows, unusableRows } from '#core/device-discovery.js';
import { builtInProfiles } from '#core/hardware-profile-book.js';
import { addProfilesOfFile } from '#core/hardware-profile-file.js';
import { machineOf, recordedMachine } from './recorded-machine.js';
import type { DiscoveryOptions } from '#adapters/hardware/discover.js';
import type { DiscoveryReport } from '#core/device-discovery.js';

const discover = (machine: string, more: Partial<DiscoveryOptions> = {}): Promise<DiscoveryReport> =>
  discoverDevices({
    reader: recordedMachine(machine),
    profiles: builtInProfiles,
    memoryShare: 0.5,
    cpuThreads: 0,
    ...more,
  });
const ids = (report: DiscoveryReport): readonly string[] => report.devices.map(({ id }) => id);
const unusable = (report: DiscoveryReport, name: string) => report.unusable.find((one) => one.name.startsWith(name));

describe('discovery of NVIDIA GPUs', () => {
  it('finds GPUs, says that the CUDA provider is not installed, and how to install it', async () => {
    const report = await discover('two-l4');
    expect(ids(report)).toEqual(['cpu:0', 'wasm:0']);
    expect(unusable(report, 'NVIDIA L4 (0000:01:00.0)')).toEqual({
      name: 'NVIDIA L4 (0000:01:00.0)',
      reason:
        "found, but the CUDA provider's library (libonnxruntime_providers_cuda.so) is not installed; the npm package does not carry it",
      remedy: 'run node node_modules/onnxruntime-node/script/install.js --onnxruntime-node-install=cuda12',
    });
    expect(unusable(report, 'webgpu')).toMatchObject({ reason: 'no Vulkan loader (libvulkan.so.1)' });
  });

  it('makes a device of each GPU once the CUDA provider is there, with profile, price, power and memory', async () => {
    const reader = recordedMachine('two-l4');
    reader.write('*/libonnxruntime_providers_cuda.so', '');
    const report = await discover('two-l4', { reader });
    expect(ids(report)).toEqual(['cpu:0', 'wasm:0', 'cuda:0', 'cuda:1']);
    const [, , first, second] = report.devices;
    expect(first).toMatchObject({
      kind: 'gpu',
      name: 'NVIDIA L4',
      vendor: 'NVIDIA',
      provider: 'cuda',
      fallbackProviders: ['cpu'],
      emulated: false,
      memoryBytes: (23_034 * 2 ** 20) / 2,
      profile: 'nvidia-l4',
      busyWatts: { watts: 72, source: 'profile' },
      price: { usdPerHour: 0.8, source: 'profile', origin: 'profile nvidia-l4 (2026-08), sources P' },
      facts: { bus: '0000:01:00.0', driver: '555.42.06', index: 0 },
    });
    expect(second?.busyWatts).toEqual({ watts: 60, source: 'profile' });
    expect(deviceEnvironment(second!)).toEqual({ CUDA_VISIBLE_DEVICES: 'GPU-00000000-5a60-059e-348d-000000000002' });
    expect(report.unusable.map(({ name }) => name)).toEqual(['webgpu']);
  });

  it('names the CUDA libraries that the loader does not find', async () => {
    const reader = recordedMachine('two-l4');
    reader.write('*/libonnxruntime_providers_cuda.so', '');
    reader.write(
      '$ /sbin/ldconfig -p',
      '\tlibcuda.so.1 (libc6,x86-64) => /lib/libcuda.so.1\n\tlibcudart.so.12 (libc6) => /x\n',
    );
    const report = await discover('two-l4', { reader });
    expect(unusable(report, 'NVIDIA L4')?.reason).toBe(
      'found, but the CUDA provider needs libcublas.so.12, libcublasLt.so.12, libcufft.so.11, libcudnn.so.9, which the loader does not find',
    );
    expect(unusable(report, 'NVIDIA L4')?.remedy).toMatch(/cuDNN 9 for CUDA 12/);
  });

  it('knows a GPU in a container without nvidia-smi from the kernel module', async () => {
    const report = await discover('h100-container');
    expect(report.accelerators).toMatchObject([
      {
        name: 'NVIDIA H100 80GB HBM3',
        bus: '0000:62:00.0',
        uuid: 'GPU-00000000-b60b-a624-bf14-000000000003',
        driver: '535.129.03',
      },
    ]);
    expect(unusable(report, 'nvidia-smi')?.reason).toMatch(/not installed/);
    expect(unusable(report, 'NVIDIA H100')?.reason).toMatch(/CUDA provider's library/);
  });

  it('makes a device of each slice of a GPU in MIG mode, and says when a GPU has none', async () => {
    const report = await discover('a100-mig');
    expect(
      report.devices.slice(2).map(({ id, name, memoryBytes, profile }) => ({ id, name, memoryBytes, profile })),
    ).toEqual([
      {
        id: 'cuda:0',
        name: 'NVIDIA A100-SXM4-80GB MIG 1g.10gb',
        memoryBytes: 5 * 2 ** 30,
        profile: 'nvidia-a100-mig-1g.10gb',
      },
      { id: 'cuda:1', name: 'NVIDIA A100-SXM4-80GB MIG 3g.40gb', memoryBytes: 20 * 2 ** 30, profile: undefined },
      { id: 'cuda:2', name: 'NVIDIA A100-SXM4-80GB', memoryBytes: 40 * 2 ** 30, profile: 'nvidia-a100-sxm-80' },
    ]);
    expect(deviceEnvironment(report.devices[3]!)).toEqual({
      CUDA_VISIBLE_DEVICES: 'MIG-00000000-0000-5000-8000-000000000002',
    });
    expect(unusable(report, 'NVIDIA A100-SXM4-80GB (0000:0a:00.0)')?.reason).toMatch(/MIG mode without an instance/);
  });

  it.each([
    ['1', ['NVIDIA L4 (0000:01:00.0)']],
    ['GPU-00000000-5a60-059e-348d-000000000001', ['NVIDIA L4 (0000:c1:00.0)']],
    ['0,9,1', ['NVIDIA L4 (0000:c1:00.0)']],
    ['', ['NVIDIA L4 (0000:01:00.0)', 'NVIDIA L4 (0000:c1:00.0)']],
    ['-1', ['NVIDIA L4 (0000:01:00.0)', 'NVIDIA L4 (0000:c1:00.0)']],
  ])('honours CUDA_VISIBLE_DEVICES=%s', async (variable, hidden) => {
    const recorded = recordedMachine('two-l4');
    recorded.write('*/libonnxruntime_providers_cuda.so', '');
    const report = await discover('two-l4', { reader: { ...recorded, env: { CUDA_VISIBLE_DEVICES: variable } } });
    expect(
      report.unusable.filter(({ reason }) => reason === 'hidden by CUDA_VISIBLE_DEVICES').map(({ name }) => name),
    ).toEqual(hidden);
    expect(ids(report)).toHaveLength(4 - hidden.length);
  });

  it('says what a broken driver says, and that nouveau cannot compute', async () => {
    const report = await discover('broken-driver');
    expect(unusable(report, 'nvidia-smi')?.reason).toMatch(/couldn't communicate with the NVIDIA driver/);
    expect(unusable(report, 'NVIDIA GPU 0x10de:0x1eb8 (0000:00:1e.0)')?.reason).toBe(
      'its driver is nouveau, which cannot compute',
    );
  });

  it('explains that Arm hosts have no CUDA provider', async () => {
    const report = await discover('gh200');
    expect(unusable(report, 'NVIDIA GH200 480GB')?.reason).toBe(
      'found, but onnxruntime-node has no CUDA provider for linux arm64',
    );
    expect(report.host.cpu).toMatchObject({ model: 'Arm Neoverse V2', vendor: 'Arm' });
    expect(report.host.cpu.extensions).toEqual(['asimd', 'asimdhp', 'asimddp', 'i8mm', 'bf16', 'sve', 'sve2']);
  });
});

describe('discovery of other accelerators', () => {
  it('finds AMD GPUs in the kfd topology once, and uses them through WebGPU', async () => {
    const report = await discover('two-instincts');
    expect(report.accelerators).toMatchObject([
      {
        name: 'AMD Instinct MI210',
        bus: '0000:63:00.0',
        memoryBytes: 68_702_699_520,
        facts: { architecture: 'gfx90a', computeUnits: 104 },
      },
      {
        name: 'AMD Instinct MI300X',
        bus: '0001:e3:00.0',
        memoryBytes: 206_141_652_992,
        facts: { architecture: 'gfx942', computeUnits: 304 },
      },
    ]);
    expect(ids(report)).toEqual(['cpu:0', 'wasm:0', 'webgpu:0']);
    expect(report.devices[2]).toMatchObject({
      name: 'AMD Instinct MI210',
      profile: 'amd-mi210',
      facts: { adapterGuessed: true },
    });
    expect(unusable(report, 'AMD Instinct MI300X')?.reason).toMatch(/WebGPU offers one adapter/);
  });

  it('takes the name that the tried adapter gives, and matches profile and price again', async () => {
    const tried: string[] = [];
    const report = await discover('two-instincts', {
      probe: (device) => {
        tried.push(device.id);
        return Promise.resolve({ ok: true, adapter: 'AMD Instinct MI300X' });
      },
    });
    expect(tried).toEqual(['webgpu:0']);
    expect(report.devices[2]).toMatchObject({
      name: 'AMD Instinct MI300X',
      profile: 'amd-mi300x',
      busyWatts: { watts: 750 },
      price: { usdPerHour: 1.78 },
    });
  });

  it('leaves out an adapter that fails its trial, and says why', async () => {
    for (const probe of [
      () => Promise.resolve({ ok: false as const, reason: 'no WebGPU adapter' }),
      () => Promise.reject(new Error('no WebGPU adapter')),
    ]) {
      const report = await discover('two-instincts', { probe });
      expect(ids(report)).toEqual(['cpu:0', 'wasm:0']);
      expect(unusable(report, 'webgpu:0 (AMD Instinct MI210)')?.reason).toBe('a trial run failed: no WebGPU adapter');
      expect(unusable(report, 'AMD Instinct MI300X')?.remedy).toMatch(/remote device/);
    }
  });

  it('finds an Intel GPU and an NPU whose node it may not open', async () => {
    const report = await discover('lunar-lake');
    expect(report.accelerators).toMatchObject([
      {
        kind: 'gpu',
        vendor: 'Intel',
        name: 'Intel Arc 140V (Lunar Lake)',
        driver: 'xe',
        bus: '0000:00:02.0',
        facts: { maximumMhz: 1950 },
      },
      {
        kind: 'npu',
        vendor: 'Intel',
        name: 'Intel NPU 4 (Lunar Lake)',
        driver: 'intel_vpu',
        facts: { nodeAccess: 'denied' },
      },
    ]);
    expect(unusable(report, 'Intel NPU 4')).toMatchObject({
      reason: 'found, but /dev/accel/accel0 may not be opened by this user',
      remedy: 'add the user to the group render',
    });
    expect(unusable(report, 'Intel Arc 140V')?.reason).toMatch(/through WebGPU only, which is not usable here/);
    expect(report.host.powerMeter.detail).toMatch(/readable by root only/);
  });

  it('finds Apple silicon with Core ML and WebGPU', async () => {
    const report = await discover('macbook-m4');
    expect(ids(report)).toEqual(['cpu:0', 'wasm:0', 'webgpu:0', 'coreml:0']);
    expect(report.devices[2]).toMatchObject({
      name: 'Apple M4',
      vendor: 'Apple',
      profile: 'apple-m4',
      facts: { metal: 'metal3', cores: 10 },
    });
    expect(report.host).toMatchObject({
      cpu: { model: 'Apple M4', vendor: 'Apple', physicalCores: 10 },
      usableCores: 10,
    });
  });

  it('finds DirectML and WebGPU on Windows', async () => {
    const report = await discover('windows');
    expect(ids(report)).toEqual(['cpu:0', 'wasm:0', 'webgpu:0', 'dml:0']);
    expect(report.devices[0]).toMatchObject({
      name: 'AMD Ryzen 9 7950X 16-Core Processor',
      profile: 'amd-ryzen-9-7950x',
    });
  });

  it('labels a software Vulkan driver, whose power and price are the processor s', async () => {
    const recorded = recordedMachine('two-l4');
    recorded.write('$ /sbin/ldconfig -p', '\tlibvulkan.so.1 (libc6,x86-64) => /lib/libvulkan.so.1\n');
    recorded.write('/usr/lib/chromium/vk_swiftshader_icd.json', '{}');
    const without = await discover('two-l4', { reader: recorded });
    expect(unusable(without, 'webgpu')?.remedy).toContain('VK_DRIVER_FILES=/usr/lib/chromium/vk_swiftshader_icd.json');
    const env = { VK_DRIVER_FILES: '/usr/lib/chromium/vk_swiftshader_icd.json' };
    const report = await discover('two-l4', { reader: { ...recorded, env } });
    expect(report.devices[2]).toMatchObject({
      id: 'webgpu:0',
      name: 'software Vulkan driver',
      facts: { software: true },
      price: { source: 'estimated' },
    });
  });
});

describe('discovery of the processor', () => {
  it('honours the control groups of both versions and the affinity', async () => {
    const unified = (await discover('two-l4')).host;
    expect(unified).toMatchObject({
      cpu: { sockets: 2, physicalCores: 8, logicalCores: 16 },
      usableCores: 8,
      coresLimit: 'control group',
      usableMemoryBytes: 64 * 2 ** 30,
      memoryLimit: 'control group',
    });
    const legacy = (await discover('h100-container')).host;
    expect(legacy).toMatchObject({ usableCores: 2, coresLimit: 'control group', usableMemoryBytes: 32 * 2 ** 30 });
    const reader = recordedMachine('a100-mig');
    reader.write('/proc/self/status', 'Cpus_allowed_list:\t0-2,7\n');
    expect((await discover('a100-mig', { reader })).host).toMatchObject({
      usableCores: 4,
      coresLimit: 'affinity',
      memoryLimit: 'machine',
    });
  });

  it('names the vector extensions of x86 that engines use', async () => {
    const { host } = await discover('two-l4');
    expect(host.cpu.extensions).toEqual(
      'sse4_2 avx f16c fma avx2 avx_vnni avx512f avx512_vnni avx512_bf16 avx512_fp16 amx_tile amx_int8 amx_bf16'.split(
        ' ',
      ),
    );
  });

  it('estimates power and price of a processor by its share of a profile, and says so', async () => {
    const [cpu, wasm] = (await discover('two-l4')).devices;
    // 8592+: 350 W for 128 logical cores, of which 8; the class of cloud processors: 2.25 $/h for 48.
    expect(cpu).toMatchObject({
      profile: 'intel-xeon-8592plus',
      busyWatts: { watts: 21.875, source: 'estimated' },
      threads: 8,
    });
    expect(cpu?.price).toEqual({
      usdPerHour: 0.375,
      source: 'estimated',
      origin: 'profile class-cloud-cpu (2026-08): 2.25 $/h for 48 logical cores, share of 8',
    });
    expect(wasm).toMatchObject({ threads: 1, price: { usdPerHour: 0.046875 } });
  });

  it('takes price and power from the profiles file where it has them', async () => {
    const profiles = addProfilesOfFile(
      builtInProfiles,
      { profiles: { 'intel-xeon-8592plus': { usdPerHour: 12.8, tdpWatts: 320 } } },
      'mine.yaml',
    );
    const [cpu] = (await discover('two-l4', { profiles })).devices;
    expect(cpu).toMatchObject({
      busyWatts: { watts: 20, source: 'configured' },
      price: { usdPerHour: 0.8, source: 'configured' },
    });
  });

  it('runs the cpu device on WebAssembly where the native library cannot be loaded', async () => {
    const report = await discover('broken-driver');
    expect(report.devices[0]).toMatchObject({ id: 'cpu:0', provider: 'wasm' });
    expect(unusable(report, 'cpu')?.reason).toMatch(/cannot be loaded: Error: libstdc\+\+\.so\.6/);
  });

  it('knows a Raspberry Pi by its board', async () => {
    const report = await discover('raspberry-pi-4');
    expect(report.devices[0]).toMatchObject({
      name: 'Raspberry Pi 4 Model B Rev 1.4',
      profile: 'raspberry-pi-4',
      threads: 2,
    });
  });

  it('uses as many threads as it is told', async () => {
    expect((await discover('two-l4', { cpuThreads: 3 })).devices[0]?.threads).toBe(3);
  });

  it('survives a machine that tells nothing', async () => {
    const report = await discoverDevices({
      reader: machineOf(''),
      profiles: builtInProfiles,
      memoryShare: 0.9,
      cpuThreads: 0,
    });
    expect(ids(report)).toEqual(['cpu:0', 'wasm:0']);
    expect(report.host).toMatchObject({ usableCores: 1, usableMemoryBytes: 2 ** 30 });
  });
});

describe('the report', () => {
  it('reads as rows of texts of one width', async () => {
    const report = await discover('a100-mig');
    const rows = deviceRows(report);
    expect(rows).toHaveLength(report.devices.length + 1);
    expect(new Set(rows.map((row) => row.length))).toEqual(new Set([9]));
    expect(rows[3]).toEqual([
      'cuda:0',
      'gpu',
      'NVIDIA A100-SXM4-80GB MIG 1g.10gb',
      'cuda → cpu',
      '5 GiB',
      '',
      '',
      '',
      'nvidia-a100-mig-1g.10gb',
    ]);
    expect(unusableRows(report)[0]).toEqual(['not usable', 'why', 'what to do']);
  });

  it('survives a round trip through JSON', async () => {
    const report = await discover('two-instincts');
    expect(JSON.parse(JSON.stringify(report))).toEqual(report);
  });

  it('finds the processor of this machine with both of its providers, within a bounded number of commands', async () => {
    const report = await discoverDevices({
      reader: thisMachine(),
      profiles: builtInProfiles,
      memoryShare: 0.9,
      cpuThreads: 0,
    });
    expect(ids(report).slice(0, 2)).toEqual(['cpu:0', 'wasm:0']);
    expect(report.devices[0]).toMatchObject({ provider: 'cpu', emulated: false });
    expect(report.devices[0]!.memoryBytes).toBeGreaterThan(2 ** 28);
    expect(report.devices[0]!.price?.origin).toMatch(/profile/);
  });
});
