/**
 * What ONNX Runtime can offer here: its own list, the libraries beside it, and what the loader finds.
 *
 * The list is asked for in a short-lived process: loading onnxruntime-node costs the host 33 MB that it never gets back,
 * and on a machine where the binary does not fit it is the child that dies. It takes 0.15 s, once.
 */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { parseLdconfig, parseOnnxBackends } from '#core/device-discovery-providers.js';
import type { OnnxBackend, ProviderFacts } from '#core/device-discovery-providers.js';
import type { SystemReader } from './system-reader.js';

const listMsMax = 20_000;
const swiftShaderManifest = '/usr/lib/chromium/vk_swiftshader_icd.json';
const manifestFolders = ['/etc/vulkan/icd.d', '/usr/share/vulkan/icd.d', '/usr/local/share/vulkan/icd.d'];

export async function lookUpProviders(reader: SystemReader, hasNvidiaGpu: boolean): Promise<ProviderFacts> {
  const runtime = packageFolder('onnxruntime-node');
  const binaries = runtime === undefined ? '' : join(runtime, 'bin', 'napi-v6', reader.platform, reader.arch);
  const [backends, libraries, vulkanManifests, cudaProvider, idle] = await Promise.all([
    listBackends(reader, runtime),
    findLibraries(reader),
    findManifests(reader),
    reader.access(join(binaries, 'libonnxruntime_providers_cuda.so')),
    reader.access(swiftShaderManifest),
  ]);
  return {
    platform: reader.platform,
    arch: reader.arch,
    backends,
    hasWebRuntime: packageFolder('onnxruntime-web') !== undefined,
    hasCudaProvider: cudaProvider === 'readable',
    libraries,
    vulkanManifests,
    idleSwiftShader: idle === 'readable' && !vulkanManifests.includes(swiftShaderManifest) ? swiftShaderManifest : '',
    hasNvidiaGpu,
  };
}

async function listBackends(reader: SystemReader, runtime: string | undefined): Promise<ProviderFacts['backends']> {
  if (runtime === undefined) return { failure: 'the package is not installed' };
  const script = `process.stdout.write(JSON.stringify(require(${JSON.stringify(runtime)}).listSupportedBackends()))`;
  const answer = await reader.run(process.execPath, ['-e', script], listMsMax);
  if (!answer.ok) return { failure: answer.reason };
  const list: readonly OnnxBackend[] | undefined = parseOnnxBackends(answer.stdout);
  return list ?? { failure: `its list of backends is not JSON: ${answer.stdout.slice(0, 80)}` };
}

/** Folder of an installed package; its main file is two levels deep in both packages. */
function packageFolder(name: string): string | undefined {
  try {
    const main = createRequire(import.meta.url).resolve(name);
    return main.slice(0, main.lastIndexOf(join('node_modules', name)) + join('node_modules', name).length);
  } catch {
    return undefined;
  }
}

async function findLibraries(reader: SystemReader): Promise<ReadonlySet<string>> {
  if (reader.platform !== 'linux') return new Set();
  const cache = await reader.run('/sbin/ldconfig', ['-p'], 5000);
  const folders = (reader.env['LD_LIBRARY_PATH'] ?? '').split(':').filter((folder) => folder !== '');
  const listed = await Promise.all(folders.slice(0, 64).map((folder) => reader.list(folder)));
  return new Set([
    ...(cache.ok ? parseLdconfig(cache.stdout) : []),
    ...listed.flat().filter((name) => name.includes('.so')),
  ]);
}

/** Manifests that the Vulkan loader reads: those an environment variable names instead of all others, or all in its folders. */
async function findManifests(reader: SystemReader): Promise<readonly string[]> {
  if (reader.platform !== 'linux') return [];
  const chosen = reader.env['VK_DRIVER_FILES'] ?? reader.env['VK_ICD_FILENAMES'];
  if (chosen !== undefined && chosen !== '') {
    const paths = chosen
      .split(':')
      .filter((path) => path !== '')
      .slice(0, 64);
    const states = await Promise.all(paths.map((path) => reader.access(path)));
    return paths.filter((_, index) => states[index] === 'readable');
  }
  const home =
    reader.env['XDG_DATA_HOME'] ??
    (reader.env['HOME'] === undefined ? undefined : join(reader.env['HOME'], '.local/share'));
  const folders = home === undefined ? manifestFolders : [...manifestFolders, join(home, 'vulkan/icd.d')];
  const found = await Promise.all(
    folders.map(async (folder) =>
      (await reader.list(folder)).filter((name) => name.endsWith('.json')).map((name) => join(folder, name)),
    ),
  );
  return found.flat();
}
