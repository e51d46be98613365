/** The diagnostics port over node:diagnostics_channel: tools subscribe there by the names in docs/actors.md. */
import { channel } from 'node:diagnostics_channel';
import type { Diagnostics } from '#ports/diagnostics.js';

export const nodeDiagnostics: Diagnostics = { channel: (name) => channel(name) };
