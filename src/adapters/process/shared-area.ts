/**
 * A file in memory that a host and all its executor processes hold open, for payloads that are too large for a socket to
 * carry cheaply: one system call writes them, one reads them, and nobody is woken up in between. What one process has
 * written another reads without the host between them. Only Linux has it; where it is missing or full, payloads take the
 * socket.
 *
 * The file is cut into slots of one payload each. The host alone gives them out and takes them back, so that nobody writes
 * where somebody may still read; executors use those that they are told of. It has no name any more once it is open: it
 * goes when the last process is gone, and what a process has written outlives it. Executor processes are parts of one
 * program under one user: the file keeps their payloads apart by who is told of what, not against malice.
 */
import { openSync, readSync, unlinkSync, writevSync } from 'node:fs';
import { randomBytes } from 'node:crypto';

/** Shorter payloads are cheaper in the frame. */
const payloadBytesMin = 64 * 1024;
/** Longer ones would hold up the host's event loop: writing 4 MiB takes about half a millisecond. */
export const slotBytesMax = 4 * 1024 * 1024;
/** Payloads that may lie in it at once: 256 MiB, of which only what is used takes memory. */
const slotCount = 64;

let ofThisHost: { readonly area: SharedArea | undefined } | undefined;

export class SharedArea {
  readonly fd: number;
  readonly #free: number[];

  /** The area of this process and its executors, made when it is first asked for; undefined where the system has none. */
  static ofThisHost(): SharedArea | undefined {
    ofThisHost ??= { area: SharedArea.create() };
    return ofThisHost.area;
  }

  /** Makes an area; undefined where the system has none. */
  static create(): SharedArea | undefined {
    if (process.platform !== 'linux') return undefined;
    const path = `/dev/shm/intarsia-${process.pid}-${randomBytes(8).toString('hex')}`;
    try {
      const fd = openSync(path, 'wx+', 0o600);
      unlinkSync(path);
      return new SharedArea(fd);
    } catch {
      // No such folder, or not ours to write: the sockets carry everything.
      return undefined;
    }
  }

  /** Uses an area that another process has made. */
  constructor(fd: number) {
    this.fd = fd;
    this.#free = Array.from({ length: slotCount }, (_, index) => index + 1);
  }

  /** A slot, 1 and up; 0 when all are taken. */
  take(): number {
    return this.#free.pop() ?? 0;
  }

  giveBack(slot: number): void {
    if (slot > 0) this.#free.push(slot);
  }

  /** Slots that nobody has. */
  get free(): number {
    return this.#free.length;
  }

  /** Writes a payload into a slot. False when it is too short, too long, or does not fit on the system: send it otherwise. */
  write(slot: number, ranges: readonly Uint8Array[]): boolean {
    if (slot === 0 || !fitsSlot(ranges)) return false;
    try {
      return writevSync(this.fd, ranges, position(slot)) === bytesOf(ranges);
    } catch {
      // The system's memory for such files is used up.
      return false;
    }
  }

  /** Fills `target` from a slot. @throws Error when the slot has no such bytes: the other end broke the protocol. */
  read(slot: number, offset: number, target: Uint8Array): void {
    const { byteLength } = target;
    if (slot < 1 || slot > slotCount || offset + byteLength > slotBytesMax) {
      throw new Error(`shared area has no ${byteLength} bytes at ${offset} in slot ${slot}`);
    }
    const bytes = readSync(this.fd, target, 0, byteLength, position(slot) + offset);
    if (bytes !== byteLength) throw new Error(`shared area ends after ${bytes} of ${byteLength} bytes in slot ${slot}`);
  }
}

/** Whether a payload is one for a slot: neither too short nor too long. */
export function fitsSlot(ranges: readonly Uint8Array[]): boolean {
  const bytes = bytesOf(ranges);
  return bytes >= payloadBytesMin && bytes <= slotBytesMax;
}

function bytesOf(ranges: readonly Uint8Array[]): number {
  let bytes = 0;
  for (const range of ranges) bytes += range.byteLength;
  return bytes;
}

function position(slot: number): number {
  return (slot - 1) * slotBytesMax;
}
