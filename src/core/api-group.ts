/** Groups of the API that can be restricted, as Triton's --grpc-restricted-protocol. */
export const apiGroups = [
  'health',
  'metadata',
  'inference',
  'shared-memory',
  'model-config',
  'model-repository',
  'statistics',
  'trace',
  'logging',
  'grid',
] as const;
export type ApiGroup = (typeof apiGroups)[number];
