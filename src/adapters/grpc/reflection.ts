/** Server reflection, from descriptors made together with the generated code: tools such as grpcurl need no .proto files. */
import type { Server } from '@grpc/grpc-js';
import { ReflectionService } from '@grpc/reflection';
import { fileDescriptors } from '#gen/descriptors.js';

export function addReflection(server: Server): void {
  const files = fileDescriptors.map((text) => Buffer.from(text, 'base64'));
  // The service reads the descriptors of a package definition and nothing else.
  const packages = { files: { format: 'Protocol Buffer 3 DescriptorProto', type: {}, fileDescriptorProtos: files } };
  new ReflectionService(packages as unknown as ConstructorParameters<typeof ReflectionService>[0]).addToServer(server);
}

/** Calls that are streams of requests. */
export const reflectionPaths: readonly string[] = ['v1', 'v1alpha'].map(
  (version) => `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`,
);
