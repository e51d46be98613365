/** A grid for people: its hosts and devices, deployments, and the replicas that are not simply ready. */
import { formatBytes } from '#core/units.js';
import type { GridHost, GridReplica, GridStatus } from '#client/index.js';
import type { Output } from '../terminal.js';

export function printGrid(grid: GridStatus, output: Output): void {
  const leader = grid.leader === '' ? output.style('yellow', 'no leader') : `led by ${grid.leader}`;
  const store = grid.storeConnected
    ? grid.store
    : output.style('red', `${grid.store} cannot be reached: placement is frozen`);
  output.line(`grid ${output.style('bold', grid.grid)}, view ${grid.revision}, ${leader}; store: ${store}`);
  output.line();
  output.table(
    ['host', 'role', 'state', 'tier', 'zone', 'devices', 'gRPC', 'round trip'],
    grid.hosts.map((host) => [
      host.host,
      host.role,
      stateOf(host, output),
      host.tier,
      host.zone,
      host.devices.map(({ id, emulated }) => (emulated ? `${id} (emulated)` : id)).join(', '),
      host.grpcEndpoint,
      host.roundTripMs === 0 ? '' : `${host.roundTripMs.toFixed(2)} ms`,
    ]),
  );
  if (!grid.storeConnected && grid.replicas.length === 0) {
    output.line();
    output.line('Requests are served. Deployments and replicas are in the store: they are shown when it is back.');
  }
  if (grid.deployments.length > 0) {
    output.line();
    output.table(
      ['deployment', 'model', 'version', 'ready', 'state', 'gate', 'reason'],
      grid.deployments.map(({ name, model, version, ready, wanted, state, gate, reason }) => [
        name,
        model,
        version,
        `${ready}/${wanted}`,
        state,
        gate,
        reason,
      ]),
    );
  }
  if (grid.replicas.length === 0) return;
  output.line();
  output.table(
    ['model', 'version', 'stage', 'variant', 'replica on', 'state', 'memory', 'deployment', 'reason'],
    grid.replicas.map((replica) => [
      replica.model,
      replica.version,
      stageOf(replica),
      replica.variant,
      `${replica.host}/${replica.device}`,
      replica.state,
      replica.memoryBytes === 0 ? '' : formatBytes(replica.memoryBytes),
      replica.deployment,
      replica.reason,
    ]),
  );
  const gates = new Map(grid.replicas.map(({ model, variant, variantGate }) => [`${model}, ${variant}`, variantGate]));
  for (const [name, gate] of gates) if (gate !== '') output.line(`variant of ${name}: ${gate}`);
}

/** `2/3` is the second of three stages; of a whole model nothing. */
function stageOf({ stage, stages, standby }: GridReplica): string {
  if (stage === 0) return '';
  return `${stage}/${stages === 0 ? '?' : stages}${standby ? ' standby' : ''}`;
}

function stateOf(host: GridHost, output: Output): string {
  const words = [host.state, host.cordoned ? 'cordoned' : '', host.spot ? 'spot' : ''].filter((word) => word !== '');
  const sick = host.devices.filter(({ degraded }) => degraded !== '').map(({ id, degraded }) => `${id} ${degraded}`);
  const reasons = [host.degraded, ...sick].filter((reason) => reason !== '');
  const text = reasons.length === 0 ? words.join(', ') : `${words.join(', ')}: ${reasons.join('; ')}`;
  return host.state === 'up' && reasons.length === 0 ? text : output.style('yellow', text);
}
