/** Paths of the service of proto/artifacts.proto. */
export const artifactPaths = {
  holds: '/intarsia.artifacts.v1.Artifacts/Holds',
  fetch: '/intarsia.artifacts.v1.Artifacts/Fetch',
} as const;
