/** Memory of a process and its descendants as proportional set size: pages shared by n processes count 1/n each. Linux. */
import { readdirSync, readFileSync } from 'node:fs';

/** PSS in bytes of the process tree below and including `pid`. @throws where /proc has no smaps_rollup. */
export function treePssBytes(pid: number): number {
  return treePids(pid).reduce((total, each) => total + pssBytes(each), 0);
}

/** The process and all below it. */
export function treePids(pid: number): readonly number[] {
  const children = childrenByParent();
  const pids = [pid];
  for (const each of pids) pids.push(...(children.get(each) ?? []));
  return pids;
}

function pssBytes(pid: number): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  const kibibytes = /^Pss:\s+(\d+) kB/m.exec(text)?.[1];
  if (kibibytes === undefined) throw new Error(`no Pss line for process ${pid}`);
  return Number(kibibytes) * 1024;
}

function childrenByParent(): Map<number, number[]> {
  const children = new Map<number, number[]>();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    let stat: string;
    try {
      stat = readFileSync(`/proc/${name}/stat`, 'utf8');
    } catch {
      continue; // The process ended between the listing and the reading.
    }
    const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
    children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
  }
  return children;
}
