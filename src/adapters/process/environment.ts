/**
 * Environment of an executor process: what drivers and libraries need to find their files and devices, nothing else.
 * Tokens, keys and passwords of the host's environment stay in the host.
 */
const exact = new Set([
  'PATH',
  'HOME',
  'USER',
  'LANG',
  'LANGUAGE',
  'TZ',
  'TMPDIR',
  'TEMP',
  'TMP',
  'LD_LIBRARY_PATH',
  'DYLD_LIBRARY_PATH',
  'DISPLAY',
  'WAYLAND_DISPLAY',
  'XDG_RUNTIME_DIR',
  'XDG_CACHE_HOME',
  'SystemRoot',
  'windir',
  'APPDATA',
  'LOCALAPPDATA',
  'ProgramData',
]);
const prefixes = [
  'LC_',
  'CUDA_',
  'NVIDIA_',
  'VK_',
  'OMP_',
  'ORT_',
  'HIP_',
  'HSA_',
  'ROCR_',
  'ZE_',
  'ONEAPI_',
  'MESA_',
  'LIBGL_',
  'DRI_',
];
const secret = /token|secret|password|passwd|credential|private|api_?key/i;

/**
 * glibc gives memory from 128 KiB on back to the system at once and gets it again page by page, which costs more than
 * what is done with it: large tensors of one run use the memory of the last instead. Other systems ignore these.
 */
const allocator = { MALLOC_ARENA_MAX: '2', MALLOC_MMAP_THRESHOLD_: '67108864', MALLOC_TRIM_THRESHOLD_: '134217728' };

/** The variables an executor process gets, and those of `extra` on top. */
export function executorEnvironment(
  host: Readonly<Record<string, string | undefined>>,
  extra: Readonly<Record<string, string>>,
): Record<string, string> {
  const environment: Record<string, string> = {};
  for (const [name, value] of Object.entries(host)) {
    if (value === undefined || secret.test(name)) continue;
    if (exact.has(name) || prefixes.some((prefix) => name.startsWith(prefix))) environment[name] = value;
  }
  return { ...environment, ...allocator, ...extra };
}
