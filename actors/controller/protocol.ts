/**
 * Messages of the controller: one on each host that may lead, at work only on the host that does. It turns deployments into
 * assignments of hosts. Everything it writes names its epoch, so that one who was replaced writes nothing.
 */
import type { ReplyTo } from '#runtime/actor.js';

export interface ControllerStatus {
  /** Of the present lead; undefined while another host leads. */
  readonly epoch: number | undefined;
  /** It knows everything that it decides by. */
  readonly isReady: boolean;
  /** Looks taken, and transactions written, in this lead. */
  readonly reconciliations: number;
  readonly writes: number;
  /** Something decided is not in the store yet. */
  readonly isWriting: boolean;
}

export type ControllerMessage = { readonly type: 'status'; readonly replyTo: ReplyTo<ControllerStatus> };
