/**
 * Where an executor lives: `process` survives a crash of the engine, `thread` spares a hop between processes, `remote` is
 * another server, `inline` computes in the caller (emulated devices without an engine).
 */
export type Isolation = 'process' | 'thread' | 'remote' | 'inline';
