export const root: string;
export const stampPath: string;
export function sourceFingerprint(): string;
export function isBuildFresh(): boolean;
