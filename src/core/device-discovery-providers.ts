/**
 * Which execution providers ONNX Runtime can offer on this machine, and for each one that it cannot: why, and what to do.
 * Decided from files and from what ONNX Runtime's own list says; whether silicon really answers is tried later.
 */
import type { ExecutionProvider } from './provider.js';

/** What was looked up about one machine. */
export interface ProviderFacts {
  readonly platform: string;
  readonly arch: string;
  /** Answer of `listSupportedBackends` in a process of its own, or why there was none. */
  readonly backends: readonly OnnxBackend[] | { readonly failure: string };
  /** Whether onnxruntime-web is installed. */
  readonly hasWebRuntime: boolean;
  /** Whether the CUDA provider's library lies beside ONNX Runtime's. */
  readonly hasCudaProvider: boolean;
  /** Names of shared libraries the loader finds, such as `libcudart.so.12`. */
  readonly libraries: ReadonlySet<string>;
  /** Vulkan driver manifests in force. */
  readonly vulkanManifests: readonly string[];
  /** A SwiftShader manifest that is there but not in force; empty when there is none. */
  readonly idleSwiftShader: string;
  readonly hasNvidiaGpu: boolean;
}

export interface OnnxBackend {
  readonly name: string;
  readonly bundled: boolean;
}

export interface ProviderFinding {
  readonly provider: ExecutionProvider;
  /** True when everything it needs is there; an accelerator may still refuse when tried. */
  readonly usable: boolean;
  /** Why not; empty when usable. */
  readonly reason: string;
  readonly remedy: string;
  /** Whether an operator would expect it here: the silicon is present, or the platform has it. Others are not worth a line. */
  readonly expected: boolean;
}

/** Installs the CUDA provider with the package's own script: npm scripts are off in this project. */
export const cudaInstallCommand =
  'node node_modules/onnxruntime-node/script/install.js --onnxruntime-node-install=cuda12';

/** CUDA 12 and cuDNN 9 libraries that the CUDA provider loads, and Debian or NVIDIA packages that bring them. */
const cudaLibraries: readonly (readonly [library: string, from: string])[] = [
  ['libcuda.so.1', 'the NVIDIA driver'],
  ['libcudart.so.12', 'CUDA 12 (cuda-cudart-12)'],
  ['libcublas.so.12', 'CUDA 12 (libcublas-12)'],
  ['libcublasLt.so.12', 'CUDA 12 (libcublas-12)'],
  ['libcufft.so.11', 'CUDA 12 (libcufft-12)'],
  ['libcudnn.so.9', 'cuDNN 9 for CUDA 12 (libcudnn9-cuda-12)'],
];

/** The list that `listSupportedBackends` printed as JSON; undefined when it is something else. */
export function parseOnnxBackends(json: string): readonly OnnxBackend[] | undefined {
  let list: unknown;
  try {
    list = JSON.parse(json);
  } catch {
    return undefined;
  }
  if (!Array.isArray(list)) return undefined;
  return list.flatMap((one: unknown) => {
    const { name, bundled } = (one ?? {}) as { name?: unknown; bundled?: unknown };
    return typeof name === 'string' ? [{ name, bundled: bundled === true }] : [];
  });
}

/** Library names in the output of `ldconfig -p`. */
export function parseLdconfig(text: string): readonly string[] {
  return text.split('\n').flatMap((line) => {
    const name = /^\s+(\S+\.so\S*) \(/.exec(line)?.[1];
    return name === undefined ? [] : [name];
  });
}

/** One finding per provider, those of the processor first. */
export function findProviders(facts: ProviderFacts): readonly ProviderFinding[] {
  return [
    cpu(facts),
    wasm(facts),
    cuda(facts),
    webgpu(facts),
    platformProvider(facts, 'coreml', 'darwin'),
    platformProvider(facts, 'dml', 'win32'),
  ];
}

const usable = (provider: ExecutionProvider): ProviderFinding => ({
  provider,
  usable: true,
  reason: '',
  remedy: '',
  expected: true,
});
const lacking = (provider: ExecutionProvider, reason: string, remedy: string, expected = true): ProviderFinding => ({
  provider,
  usable: false,
  reason,
  remedy,
  expected,
});

function offers(facts: ProviderFacts, name: string): boolean {
  return 'failure' in facts.backends ? false : facts.backends.some((backend) => backend.name === name);
}

function failureOf(facts: ProviderFacts): string | undefined {
  return 'failure' in facts.backends ? facts.backends.failure : undefined;
}

function cpu(facts: ProviderFacts): ProviderFinding {
  const failure = failureOf(facts);
  if (failure !== undefined) {
    return lacking(
      'cpu',
      `onnxruntime-node cannot be loaded: ${failure}`,
      'run npm ci; its binaries need glibc on Linux (not musl), and x64 or arm64. Until then the cpu device runs on WebAssembly',
    );
  }
  return usable('cpu');
}

function wasm(facts: ProviderFacts): ProviderFinding {
  return facts.hasWebRuntime ? usable('wasm') : lacking('wasm', 'onnxruntime-web is not installed', 'run npm ci');
}

function cuda(facts: ProviderFacts): ProviderFinding {
  const expected = facts.hasNvidiaGpu;
  if (facts.platform !== 'linux' || facts.arch !== 'x64' || !offers(facts, 'cuda')) {
    return lacking(
      'cuda',
      `onnxruntime-node has no CUDA provider for ${facts.platform} ${facts.arch}`,
      'use the GPU through webgpu, or serve it with an inference server and add it as a remote device',
      expected,
    );
  }
  if (!facts.hasCudaProvider) {
    return lacking(
      'cuda',
      "the CUDA provider's library (libonnxruntime_providers_cuda.so) is not installed; the npm package does not carry it",
      `run ${cudaInstallCommand}`,
      expected,
    );
  }
  const missing = cudaLibraries.filter(([library]) => !facts.libraries.has(library));
  if (missing.length > 0) {
    const packages = [...new Set(missing.map(([, from]) => from))];
    return lacking(
      'cuda',
      `the CUDA provider needs ${missing.map(([library]) => library).join(', ')}, which the loader does not find`,
      `install ${packages.join(', ')}, and run ldconfig or set LD_LIBRARY_PATH`,
      expected,
    );
  }
  return { ...usable('cuda'), expected };
}

function webgpu(facts: ProviderFacts): ProviderFinding {
  if (!offers(facts, 'webgpu')) {
    return lacking(
      'webgpu',
      `onnxruntime-node has no WebGPU provider for ${facts.platform} ${facts.arch}`,
      'none',
      false,
    );
  }
  if (facts.platform !== 'linux') return usable('webgpu');
  if (!facts.libraries.has('libvulkan.so.1')) {
    return lacking(
      'webgpu',
      'no Vulkan loader (libvulkan.so.1)',
      "install libvulkan1 and the GPU's Vulkan driver (mesa-vulkan-drivers, or NVIDIA's own)",
    );
  }
  if (facts.vulkanManifests.length === 0) {
    return lacking(
      'webgpu',
      'no Vulkan driver: no manifest in /etc/vulkan/icd.d or /usr/share/vulkan/icd.d, and VK_DRIVER_FILES names none',
      facts.idleSwiftShader === ''
        ? "install the GPU's Vulkan driver; without a GPU, install chromium and use its SwiftShader (slow, for tests)"
        : `install the GPU's Vulkan driver; without a GPU, set VK_DRIVER_FILES=${facts.idleSwiftShader} (SwiftShader: slow, for tests)`,
    );
  }
  return usable('webgpu');
}

function platformProvider(facts: ProviderFacts, provider: 'coreml' | 'dml', platform: string): ProviderFinding {
  const expected = facts.platform === platform;
  return offers(facts, provider)
    ? { ...usable(provider), expected }
    : lacking(
        provider,
        `onnxruntime-node has no ${provider} provider for ${facts.platform} ${facts.arch}`,
        'none',
        expected,
      );
}
