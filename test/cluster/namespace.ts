/** A network namespace of Linux with one cable to this machine's own network. Needs root. */
import { spawnSync } from 'node:child_process';

export interface Namespace {
  /** Of this machine's end of the cable, and of the end inside. */
  readonly outside: string;
  readonly inside: string;
  /** Command before one that shall run inside. */
  readonly within: readonly string[];
  pull(): void;
  plug(): void;
  remove(): void;
}

/** Undefined where namespaces or cables cannot be made. Names are made of this process's id. */
export function makeNamespace(): Namespace | undefined {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return undefined;
  const tag = `it${process.pid % 100_000}`;
  const [near, far] = [`${tag}a`, `${tag}b`];
  const subnet = `10.213.${process.pid % 250}`;
  const [outside, inside] = [`${subnet}.1`, `${subnet}.2`];
  const remove = (): void => {
    run(`ip link del ${near}`);
    run(`ip netns del ${tag}`);
  };
  const steps = [
    `ip netns add ${tag}`,
    `ip link add ${near} type veth peer name ${far}`,
    `ip link set ${far} netns ${tag}`,
    `ip addr add ${outside}/24 dev ${near}`,
    `ip link set ${near} up`,
    `ip -n ${tag} addr add ${inside}/24 dev ${far}`,
    `ip -n ${tag} link set ${far} up`,
    `ip -n ${tag} link set lo up`,
  ];
  if (!steps.every(run)) {
    remove();
    return undefined;
  }
  return {
    outside,
    inside,
    within: ['ip', 'netns', 'exec', tag],
    pull: () => void run(`ip link set ${near} down`),
    plug: () => void run(`ip link set ${near} up`),
    remove,
  };
}

function run(command: string): boolean {
  const [name = '', ...args] = command.split(' ');
  return spawnSync(name, args, { stdio: 'ignore' }).status === 0;
}
