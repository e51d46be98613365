/**
 * What happened to a grid's hosts, in words for people: the difference of two views. The leader writes it; what became of
 * deployments is told by whoever rolls them out.
 */
import type { HostId } from '../ids.js';
import type { ReconcileEvent } from './reconcile.js';
import type { HostActual, View, ViewHost } from './records.js';

export function viewEvents(before: View, now: View): readonly ReconcileEvent[] {
  const events: ReconcileEvent[] = [];
  for (const [host, current] of inOrder(now)) events.push(...eventsOf(before.hosts.get(host), current));
  for (const [host, old] of inOrder(before)) {
    if (now.hosts.has(host)) continue;
    const isExpected = old.state === 'draining';
    events.push(
      isExpected
        ? { level: 'info', subject: subjectOf(host), text: 'left' }
        : { level: 'warn', subject: subjectOf(host), text: 'is gone without leaving: its lease ended' },
    );
  }
  return events;
}

function eventsOf(before: ViewHost | undefined, now: ViewHost): readonly ReconcileEvent[] {
  const subject = subjectOf(now.record.host);
  const { generation } = now;
  if (before === undefined) {
    const devices = now.record.devices.map(({ id }) => id).join(', ');
    const what = now.record.role === 'gateway' ? 'gateway' : devices === '' ? 'no devices' : devices;
    return [{ level: 'info', subject, text: `joined as generation ${generation}: ${what}` }];
  }
  const events: ReconcileEvent[] = [];
  if (before.generation !== generation) {
    const how = before.record.process === now.record.process ? 'lost its lease and came back' : 'was started again';
    events.push({ level: 'warn', subject, text: `${how}, as generation ${generation}` });
  }
  if (before.state !== now.state) {
    if (now.state === 'suspected') {
      events.push({ level: 'warn', subject, text: 'is suspected: its peers cannot reach it' });
    } else if (now.state === 'draining') events.push({ level: 'info', subject, text: 'is draining' });
    else if (before.state === 'suspected') events.push({ level: 'info', subject, text: 'answers its peers again' });
    else events.push({ level: 'info', subject, text: 'takes work again' });
  }
  if (before.cordoned !== now.cordoned && now.state !== 'draining') {
    events.push({ level: 'info', subject, text: now.cordoned ? 'is cordoned' : 'is no longer cordoned' });
  }
  return events;
}

/** Devices out of service with the reason, by `host/device`. */
export function devicesOut(actuals: ReadonlyMap<HostId, HostActual>): ReadonlyMap<string, string> {
  const out = new Map<string, string>();
  for (const [host, { degraded }] of actuals) {
    for (const [device, reason] of Object.entries(degraded)) out.set(`${host}/${device}`, reason);
  }
  return out;
}

/** What became of devices between two looks. */
export function deviceEvents(
  before: ReadonlyMap<string, string>,
  now: ReadonlyMap<string, string>,
): readonly ReconcileEvent[] {
  const events: ReconcileEvent[] = [];
  for (const [device, reason] of now) {
    if (before.has(device)) continue;
    events.push({ level: 'warn', subject: `device ${device}`, text: `is out of service: ${reason}` });
  }
  return events;
}

function subjectOf(host: HostId): string {
  return `host ${host}`;
}

function inOrder({ hosts }: View): readonly (readonly [HostId, ViewHost])[] {
  return [...hosts].sort(([left], [right]) => (left < right ? -1 : 1));
}
