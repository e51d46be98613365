// Who may import whom: ARCHITECTURE.md, Layers. Each rule says where the code wants to live instead.
const layer = (name, from, allowed, comment) => ({
  name,
  comment,
  severity: 'error',
  from: { path: from },
  to: { pathNot: allowed },
});

// Modules of Node itself: dependency-cruiser names them without `node:`.
const node = `^(node:)?(${require('node:module').builtinModules.join('|')})$`;
const core = '^src/core/';
const ports = '^src/ports/';
const gen = '^src/gen/';
const runtime = '^src/runtime/';
const decidingPolicies = '^policies/(placement|batching|residency)/';
const protocols = '^actors/[^/]+/protocol\\.ts$';

const adapterRules = [
  ['grpc', `^node_modules/(@grpc|@protobuf-ts)/|${node}`],
  ['http', `^node_modules/(fastify|undici|@types|@protobuf-ts)/|${node}`],
  ['onnx', `^node_modules/(onnxruntime-node|onnxruntime-web|onnxruntime-common)/|${node}`],
  ['piscina', `^node_modules/piscina/|${node}`],
  ['process', node],
  ['remote', `^node_modules/(@grpc|@protobuf-ts)/|${node}`],
  ['embedded-store', `^node_modules/(@grpc|@protobuf-ts)/|${node}`],
  ['etcd', `^node_modules/(etcd3|@grpc|cockatiel)/|${node}`],
  ['files', node],
  ['certificates', node],
  ['hardware', node],
  ['node', node],
  ['pino', `^node_modules/pino/|${node}`],
  ['prometheus', `^node_modules/prom-client/|${node}`],
  ['opentelemetry', `^node_modules/@opentelemetry/|${node}`],
  ['tfjs', `^node_modules/@tensorflow/|${node}`],
  ['pictures', `^node_modules/sharp/|${node}`],
  ['parquet', `^node_modules/(hyparquet|hyparquet-writer)/|${node}`],
  ['duckdb', `^node_modules/@duckdb/|${node}`],
  ['profile-files', node],
  ['yaml', `^node_modules/yaml/|${node}`],
  ['highs', '^node_modules/highs/'],
].map(([folder, packages]) =>
  layer(
    `adapter-${folder}`,
    `^src/adapters/${folder}/`,
    `${core}|${ports}|${gen}|^src/adapters/${folder}/|${packages}`,
    'One adapter folder owns one npm package or one source of the operating system and imports only core, ports and gen.',
  ),
);

module.exports = {
  forbidden: [
    {
      name: 'no-cycles',
      severity: 'error',
      comment: 'A cycle hides a third idea: give it a file.',
      from: {},
      to: { circular: true },
    },
    { name: 'no-unresolvable', severity: 'error', from: {}, to: { couldNotResolve: true } },
    layer('core-is-alone', core, core, 'Core decides: pure, no node:, no npm. What it needs from outside is a port.'),
    layer('ports-know-core', ports, `${core}|${ports}`, 'A port is an interface over core types.'),
    layer('gen-is-generated', gen, `${gen}|^node_modules/@protobuf-ts/`, 'Generated code imports its runtime only.'),
    layer('runtime', runtime, `${core}|${ports}|${runtime}`, 'The actor system knows core and ports.'),
    layer(
      'policies-decide',
      decidingPolicies,
      `${core}|${ports}|${decidingPolicies}`,
      'Policies are pure functions over core types.',
    ),
    layer(
      'policies-learn',
      '^policies/learning/',
      `${core}|${ports}|${decidingPolicies}|^policies/learning/|^src/sim/|^src/adapters/tfjs/`,
      'Trainers see core, ports, the simulator, other policies and TensorFlow.js. Files and threads are handed in by the composition.',
    ),
    layer(
      'actors',
      '^actors/([^/]+)/',
      `${core}|${ports}|${runtime}|${decidingPolicies}|^actors/$1/|${protocols}`,
      "An actor sees another actor's protocol.ts only.",
    ),
    ...adapterRules,
    layer(
      'executor-entries',
      '^src/executor/',
      `${core}|${ports}|^src/executor/|^src/adapters/(onnx|piscina|process)/|^node:|^(worker_threads|process|fs|net|v8|os|path|url)$`,
      'Entry files of worker threads and executor processes.',
    ),
    layer(
      'sim-pretends',
      '^src/sim/',
      `${core}|${ports}|${runtime}|^actors/|${decidingPolicies}|^src/server/|^src/sim/`,
      'The simulator runs the production code, gateways included, over pretended ports.',
    ),
    layer(
      'server',
      '^src/server/(?!grid-actors\\.ts$)',
      `${core}|${ports}|${runtime}|${protocols}|${gen}|^src/server/|^node_modules/@protobuf-ts/`,
      'Handlers know core, ports and protocols; adapters bind them to a transport.',
    ),
    layer(
      'grid-actors',
      '^src/server/grid-actors\\.ts$',
      `${core}|${ports}|${runtime}|^actors/|^src/server/`,
      'Spawns the actors of a grid, for real hosts and simulated ones alike: no adapters.',
    ),
    layer(
      'client',
      '^src/client/',
      `${core}|${ports}|${gen}|^src/client/|^src/adapters/(grpc|node)/`,
      'The client never knows the runtime or the actors.',
    ),
    layer(
      'cli',
      '^src/cli/',
      `${core}|${ports}|^src/client/|^src/cli/|^src/config\\.ts$|^node_modules/(commander|cli-table3|cli-progress|yaml|hdr-histogram-js|@types)/|^(node:)?(fs|path|os|url|process|readline|child_process|util|fs/promises|worker_threads|events)$`,
      'What a command runs is handed in by main.ts.',
    ),
    layer('config', '^src/config\\.ts$', core, 'Options are plain values.'),
    {
      name: 'nothing-imports-tests',
      severity: 'error',
      comment: 'test, bench and examples are leaves.',
      from: { path: '^(src|actors|policies)/' },
      to: { path: '^(test|bench|examples)/' },
    },
    {
      name: 'not-to-dev-dep',
      severity: 'error',
      comment: 'The product must run without devDependencies.',
      from: { path: '^(src|actors|policies)/' },
      to: { dependencyTypes: ['npm-dev'] },
    },
  ],
  options: {
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '^dist/' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['intarsia-source', 'import', 'require', 'node', 'default', 'types'],
    },
  },
};
