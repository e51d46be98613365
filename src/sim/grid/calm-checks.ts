/** What must be so once no fault strikes any more, looked at from outside. Each check says what is wrong; empty: nothing. */
import type { Deployment } from '#core/grid/records.js';
import type { SimulatedHost } from './simulated-host.js';
import type { StoreObserver } from './store-observer.js';

export interface CalmChecksOptions {
  readonly hosts: () => readonly SimulatedHost[];
  readonly observer: StoreObserver;
  /** What operators want, as they said it last. */
  readonly deployed: ReadonlyMap<string, Deployment>;
}

export class CalmChecks {
  readonly #options: CalmChecksOptions;

  constructor(options: CalmChecksOptions) {
    this.#options = options;
  }

  /** Every host sees exactly the hosts that run, all of them well. */
  viewsProblem(): string {
    const hosts = this.#options.hosts();
    for (const host of hosts) {
      const { news } = host;
      if (news === undefined || news.phase !== 'joined') return `${host.name} is ${news?.phase ?? 'without news'}`;
      if (news.stale) return `the view of ${host.name} is stale`;
      for (const other of hosts) {
        const seen = news.view.hosts.get(other.name);
        if (seen === undefined) return `${host.name} does not see ${other.name}`;
        if (seen.record.process !== other.process) return `${host.name} sees another process of ${other.name}`;
        if (seen.state !== 'up') return `${host.name} sees ${other.name} as ${seen.state}`;
      }
      for (const name of news.view.hosts.keys()) {
        if (!hosts.some((other) => other.name === name)) return `${host.name} sees ${name}, which does not run`;
      }
    }
    return '';
  }

  /** Of every deployment as many copies serve as were asked for, each where it was assigned, and nothing else does. */
  servedProblem(): string {
    const { deployed, observer } = this.#options;
    const hosts = this.#options.hosts();
    const serving = hosts.flatMap((host) => host.serving()).sort();
    const assigned = [...observer.assignments]
      .filter(([name]) => hosts.some((host) => host.name === name))
      .flatMap(([name, { record }]) =>
        record.replicas.map(({ model, version, device }) => `${model}/${version} on ${name} ${device}`),
      )
      .sort();
    for (const { name, model, version, replicas = 0 } of deployed.values()) {
      const rollout = observer.rollouts.get(name);
      if (rollout === undefined) return `deployment ${name} has no rollout`;
      if (rollout.phase === 'progressing') return `deployment ${name} is still on its way: ${rollout.reason}`;
      const wanted = rollout.phase === 'rolled-back' ? (rollout.stable?.version ?? version) : version;
      if (rollout.target.version !== version) return `the rollout of ${name} is about another version`;
      const copies = serving.filter((line) => line.startsWith(`${model}/`));
      const right = copies.filter((line) => line.startsWith(`${model}/${wanted} `));
      if (right.length !== replicas || copies.length !== replicas) {
        return `deployment ${name} wants ${replicas} copies of ${model}/${wanted}; there are: ${copies.join(', ')} (${rollout.phase}: ${rollout.reason})`;
      }
    }
    if (serving.join() !== assigned.join()) {
      return `what is served differs from what is assigned: ${serving.join(', ')} | ${assigned.join(', ')}`;
    }
    return '';
  }
}
