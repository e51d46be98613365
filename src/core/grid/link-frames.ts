/**
 * What the two ends of a link say to each other in frames (frame.ts). Kinds and layouts are part of the link protocol;
 * its version grows when they change, and an end speaks every version from `linkVersionMin` to `linkVersionMax`.
 */
export const linkVersionMin = 1;
export const linkVersionMax = 2;
/** From this version on bulk channels may do without gRPC, and all channels but the first show a token (proto/link.proto). */
export const bareBulkVersionMin = 2;

/** Kinds of frames. Headers are encoded values (value-codec.ts) unless said otherwise. */
export const linkFrameKind = {
  /** First frame of a channel, from who dialled: LinkHello of proto/link.proto. */
  hello: 1,
  /** Answer to `hello`: LinkWelcome. */
  welcome: 2,
  /**
   * A message of an actor: `[path, incarnation, message]`. On the control channel tag and number name the large message
   * it waits for; on a bulk channel the number is that of the small messages it waits for (link-order.ts).
   */
  message: 3,
  /** `['watch' | 'unwatch' | 'ended', path, incarnation, reason, waits]`. */
  watch: 4,
  /** `[channel, messages, bytes]`: so much more was taken from that channel, 0 control, 1 and up bulk. */
  credit: 5,
  ping: 6,
  /** Answer to `ping`, with its number. */
  pong: 7,
  /** The host leaves; no header. */
  bye: 8,
} as const;

/** The version both ends speak; undefined when there is none. */
export function agreedVersion(own: readonly [number, number], other: readonly [number, number]): number | undefined {
  const version = Math.min(own[1], other[1]);
  return version >= own[0] && version >= other[0] ? version : undefined;
}
