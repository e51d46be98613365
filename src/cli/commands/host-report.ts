/** What a host found, for people: devices, models, endpoints, warnings, and the result of its check. */
import { formatBytes, formatMs } from '#core/units.js';
import type { HostDevice, HostModel, RunningHost, SelfCheck } from '../program.js';
import type { Output } from '../terminal.js';

export function printHost(host: RunningHost, output: Output): void {
  output.line(output.style('bold', 'Devices'));
  output.table(['device', 'kind', 'name', 'provider', 'memory', 'state'], host.devices.map(deviceRow));
  for (const { name, reason, remedy } of host.unusable) {
    output.line(output.style('dim', `not used: ${name}: ${reason}${remedy === '' ? '' : `; ${remedy}`}`));
  }
  output.line();
  output.line(output.style('bold', 'Models'));
  output.table(['model', 'version', 'state', 'devices', 'reason'], host.models.map(modelRow));
  output.line();
  output.line(output.style('bold', 'Endpoints'));
  const { grpc, http, metrics } = host.endpoints;
  output.table(
    ['protocol', 'address'],
    [
      ['gRPC (Triton, KServe)', grpc],
      ['REST v2', http],
      ['metrics', metrics],
    ],
  );
  for (const warning of host.warnings) output.note(`${output.style('yellow', 'warning:')} ${warning}`);
}

/** `--json`: the same facts. */
export function hostFacts(host: RunningHost): object {
  const { name, endpoints, devices, unusable, models, warnings } = host;
  return { name, endpoints, devices, unusable, models, warnings };
}

export function printCheck(check: SelfCheck, output: Output): void {
  output.line();
  output.line(output.style('bold', 'Self check'));
  output.table(
    ['provider', 'device', 'requests', 'median'],
    check.providers.map(({ provider, device, emulated, latencyMsP50 }) => [
      provider,
      emulated ? `${device} (emulated)` : device,
      check.requests,
      formatMs(latencyMsP50),
    ]),
  );
  const figures =
    `largest difference ${scientific(check.differenceAbsolute)} absolute, ${scientific(check.differenceRelative)} relative` +
    ` (at most ${scientific(check.toleranceRelative)} relative)`;
  const names = check.providers.map(({ provider }) => provider).join(' and ');
  if (check.passed) output.line(`${output.style('green', 'passed')}: ${names} agree on ${check.model}; ${figures}`);
  else output.line(`${output.style('red', 'failed')}: ${check.reason}; ${figures}`);
}

function deviceRow({ device, health, reason }: HostDevice): string[] {
  return [
    device.id,
    device.emulated ? `${device.kind} (emulated)` : device.kind,
    device.name,
    device.provider,
    formatBytes(device.memoryBytes),
    reason === '' ? health : `${health}: ${reason}`,
  ];
}

function modelRow({ name, version, state, reason, devices }: HostModel): string[] {
  return [name, version, state, devices.join(', '), reason];
}

function scientific(value: number): string {
  return value === 0 ? '0' : value.toExponential(1);
}
