/** Sizes, durations and money as people read them. Numbers inside the program carry their unit in the name instead. */

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;

/** `1536` → `1.5 KiB`; exact below 1 KiB. */
export function formatBytes(bytes: number): string {
  const magnitude = Math.abs(bytes);
  if (magnitude < KiB) return `${bytes} B`;
  if (magnitude < MiB) return `${trimmed(bytes / KiB)} KiB`;
  if (magnitude < GiB) return `${trimmed(bytes / MiB)} MiB`;
  return `${trimmed(bytes / GiB)} GiB`;
}

/** `0.25` → `250 µs`, `12.34` → `12.3 ms`, `90000` → `90 s`. */
export function formatMs(ms: number): string {
  const magnitude = Math.abs(ms);
  if (magnitude < 1) return `${trimmed(ms * 1000)} µs`;
  if (magnitude < 10_000) return `${trimmed(ms)} ms`;
  return `${trimmed(ms / 1000)} s`;
}

function trimmed(value: number): string {
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return String(Number(value.toFixed(digits)));
}
