/** A progress bar for long work, on a terminal only: a log file or a program that reads along sees none. */
import cliProgress from 'cli-progress';
import type { Output } from './terminal.js';

export interface Progress {
  /** Share done, 0 to 1, and a few words. */
  update(share: number, words?: string): void;
  stop(): void;
}

const silent: Progress = { update: () => {}, stop: () => {} };

export function startProgress(output: Output, title: string): Progress {
  const { terminal } = output;
  if (output.json || !terminal.errIsTty || terminal.progressStream === undefined) return silent;
  const bar = new cliProgress.SingleBar({
    format: `${title} {bar} {percentage}%  {words}`,
    stream: terminal.progressStream,
    hideCursor: true,
    clearOnComplete: true,
    barCompleteChar: '█',
    barIncompleteChar: '░',
    barsize: 30,
  });
  bar.start(1000, 0, { words: '' });
  return {
    update: (share, words = '') => bar.update(Math.round(share * 1000), { words }),
    stop: () => bar.stop(),
  };
}
