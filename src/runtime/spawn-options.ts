/** Defaults and checks of what an actor is spawned with: filled in once, at the door. */
import { intarsiaError } from '#core/errors.js';
import type { MailboxOptions, SpawnOptions, SupervisionOptions } from './actor.js';

/** Timers, and promises piped to itself, that one incarnation may have open at once, each. More fails the actor. */
export const pendingMax = 100_000;

/** Messages a mailbox can be allowed to hold, at most. */
const messagesMaxLimit = 1_000_000;

const mailboxDefaults: MailboxOptions<unknown> = {
  messagesMax: 10_000,
  bytesMax: Infinity,
  overflow: 'refuse',
};

const supervisionDefaults: SupervisionOptions = {
  decide: () => 'restart',
  restartsMax: 5,
  intervalMs: 60_000,
  backoffMsMin: 100,
  backoffMsMax: 10_000,
  keepMailbox: true,
};

const namePattern = /^[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,254}$/;

/** @throws INVALID_ARGUMENT when the name cannot be part of a path. */
export function checkActorName(name: string): void {
  if (namePattern.test(name)) return;
  throw intarsiaError(
    'INVALID_ARGUMENT',
    `actor name ${JSON.stringify(name.slice(0, 80))} is not valid: 1 to 255 characters of letters, digits and _ . : @ + -, starting with a letter, a digit or _`,
    { length: name.length },
  );
}

/** @throws INVALID_ARGUMENT when an option is out of its range. */
export function completeMailbox<Message>(options: SpawnOptions<Message>['mailbox'] = {}): MailboxOptions<Message> {
  const complete: MailboxOptions<Message> = { ...(mailboxDefaults as MailboxOptions<Message>), ...options };
  requireWhole('mailbox.messagesMax', complete.messagesMax, 1, messagesMaxLimit);
  requireRange('mailbox.bytesMax', complete.bytesMax, 1, Infinity);
  if (complete.bytesMax < Infinity && complete.sizeOf === undefined) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      'mailbox.bytesMax needs mailbox.sizeOf, which gives the bytes of a message',
    );
  }
  return complete;
}

/** @throws INVALID_ARGUMENT when an option is out of its range. */
export function completeSupervision(options: SpawnOptions<never>['supervision'] = {}): SupervisionOptions {
  const complete: SupervisionOptions = { ...supervisionDefaults, ...options };
  requireWhole('supervision.restartsMax', complete.restartsMax, 0, 1_000_000);
  requireRange('supervision.intervalMs', complete.intervalMs, 0, Infinity);
  requireRange('supervision.backoffMsMin', complete.backoffMsMin, 0, 86_400_000);
  requireRange('supervision.backoffMsMax', complete.backoffMsMax, complete.backoffMsMin, 86_400_000);
  return complete;
}

function requireWhole(option: string, value: number, min: number, max: number): void {
  requireRange(option, value, min, max);
  if (!Number.isInteger(value)) refuse(option, value, `a whole number from ${min} to ${max}`);
}

function requireRange(option: string, value: number, min: number, max: number): void {
  if (!(value >= min && value <= max)) refuse(option, value, `from ${min} to ${max}`);
}

function refuse(option: string, value: number, range: string): never {
  throw intarsiaError('INVALID_ARGUMENT', `${option} must be ${range}; it is ${value}`, { option, value });
}
