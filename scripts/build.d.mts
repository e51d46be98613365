export function build(options?: { quiet?: boolean }): void;
