/**
 * Local actors: tell and ask, ours against nact's and against the least that could do the job: an array that is pushed to
 * and drained in one deferred loop.
 *
 * Goals: ratios within one run, each way measured in turn, several times, the median. A message adds its number to a sum
 * that is checked at the end, so that nothing can be optimised away or lost. Non-goals: absolute figures of this machine,
 * the cost of what an actor does with a message.
 */
import { dispatch, query, spawnStateless, start, stop } from 'nact';
import { NodeClock } from '#adapters/node/clock.js';
import { nodeDiagnostics } from '#adapters/node/diagnostics.js';
import { SeededRandom } from '#adapters/node/random.js';
import { silentLog } from '#ports/log.js';
import type { ReplyTo } from '#runtime/actor.js';
import { ActorSystem } from '#runtime/system.js';
import { benchReport, benchRow, median, type BenchOptions, type BenchReport, type BenchRow } from './report.js';

/** One way to send numbers to something that adds them up. */
interface Contestant {
  readonly name: string;
  /** Sends `count` numbers and resolves when the last one was handled. */
  tell(count: number): Promise<void>;
  /** Asks `count` times, `inFlight` at once; each reply is the number asked with. */
  ask(count: number, inFlight: number): Promise<void>;
  close(): void;
}

type Message =
  | { readonly type: 'add'; readonly value: number }
  | { readonly type: 'flush'; readonly done: () => void }
  | { readonly type: 'ask'; readonly value: number; readonly replyTo: ReplyTo<number> };

type TellMessage = Exclude<Message, { readonly type: 'ask' }>;

/** What nact calls a reference: something to hand back to it. */
type NactRef = Parameters<typeof dispatch>[0];

/** Numbers told before the teller waits for them to be handled: it stays below the default bound of a mailbox. */
const tellWindow = 5_000;
const askDeadlineMs = 60_000;

export async function run(options: BenchOptions): Promise<BenchReport> {
  const repetitions = options.quick ? 3 : 9;
  const sizes = options.quick ? { tell: 20_000, ask: 2_000 } : { tell: 1_000_000, ask: 100_000 };
  const contestants = [ours(), nact(), bareArray()];
  const rounds = [
    { key: 'tell', label: 'tell', count: sizes.tell, play: (each: Contestant) => each.tell(sizes.tell) },
    { key: 'ask-1', label: 'ask, 1 in flight', count: sizes.ask, play: (each: Contestant) => each.ask(sizes.ask, 1) },
    {
      key: 'ask-100',
      label: 'ask, 100 in flight',
      count: sizes.ask,
      play: (each: Contestant) => each.ask(sizes.ask, 100),
    },
  ];
  const rows: BenchRow[] = [];
  for (const { key, label, count, play } of rounds) {
    const speeds = new Map<string, number[]>(contestants.map(({ name }) => [name, []]));
    for (const contestant of contestants) await play(contestant);
    for (let repetition = 0; repetition < repetitions; repetition += 1) {
      for (const contestant of contestants) {
        const startMs = performance.now();
        await play(contestant);
        speeds.get(contestant.name)?.push(count / ((performance.now() - startMs) / 1_000));
      }
    }
    const speedOf = (name: string): number => median(speeds.get(name) ?? []);
    for (const { name } of contestants) {
      rows.push(
        benchRow({ key: `${key}.${name}`, label: `${label}: ${name}`, value: speedOf(name), unit: 'messages/s' }),
      );
    }
    const toNact = {
      key: `${key}.ratio-to-nact`,
      label: `${label}: intarsia / nact`,
      value: speedOf('intarsia') / speedOf('nact'),
      unit: 'x',
    };
    rows.push(
      benchRow(key === 'ask-1' ? toNact : { ...toNact, target: { kind: 'at-least', value: 10 } }),
      benchRow({
        key: `${key}.ratio-to-array`,
        label: `${label}: bare array / intarsia`,
        value: speedOf('bare array') / speedOf('intarsia'),
        unit: 'x',
        target: { kind: 'at-most', value: 5 },
      }),
    );
  }
  for (const contestant of contestants) contestant.close();
  const valueOf = (key: string): number => rows.find((row) => row.key === key)?.value ?? NaN;
  const floor = (valueOf('ask-1.bare array') / valueOf('ask-1.nact')).toFixed(1);
  return benchReport('actors', options, rows, [
    `One ask in flight has no target against nact: there a promise and a turn of the microtask queue are most of the time; the bare array, the least that can answer with a promise, reached ${floor} times nact in this run.`,
    `Median of ${repetitions} repetitions. Tells go out in windows of ${tellWindow}; asks carry a deadline, except those of the bare array; ours is a moment that the asks of a repetition share.`,
  ]);
}

function ours(): Contestant {
  const clock = new NodeClock();
  const system = new ActorSystem({
    host: 'bench',
    clock,
    random: new SeededRandom('bench'),
    log: silentLog,
    diagnostics: nodeDiagnostics,
  });
  const sum = newSum();
  const ref = system.spawn<Message>('adder', () => ({ receive: (message) => handle(sum, message) }));
  return {
    name: 'intarsia',
    tell: (count) => tellAll(count, sum, (message) => void ref.tell(message)),
    ask: (count, inFlight) => {
      const options = { deadlineMs: clock.nowMs() + askDeadlineMs };
      return askAll(count, inFlight, (value) =>
        ref.ask<number>((replyTo) => ({ type: 'ask', value, replyTo }), options),
      );
    },
    close: () => system.terminate(),
  };
}

function nact(): Contestant {
  type NactMessage = TellMessage | { type: 'ask'; value: number; replyTo: NactRef };
  const system = start();
  const sum = newSum();
  const receive = (message: NactMessage): void => {
    if (message.type === 'ask') dispatch(message.replyTo, message.value);
    else handle(sum, message);
  };
  const ref = spawnStateless(system, receive, 'adder');
  return {
    name: 'nact',
    tell: (count) => tellAll(count, sum, (message) => dispatch(ref, message)),
    ask: (count, inFlight) =>
      askAll(count, inFlight, (value) => {
        const build = (replyTo: NactRef): NactMessage => ({ type: 'ask', value, replyTo });
        return query(ref, build, askDeadlineMs) as Promise<number>;
      }),
    close: () => stop(system),
  };
}

function bareArray(): Contestant {
  const sum = newSum();
  let mailbox: Message[] = [];
  let isPending = false;
  const drain = (): void => {
    const messages = mailbox;
    mailbox = [];
    isPending = false;
    for (const message of messages) handle(sum, message);
  };
  const tell = (message: Message): void => {
    mailbox.push(message);
    if (isPending) return;
    isPending = true;
    queueMicrotask(drain);
  };
  return {
    name: 'bare array',
    tell: (count) => tellAll(count, sum, tell),
    ask: (count, inFlight) =>
      askAll(
        count,
        inFlight,
        (value) =>
          new Promise((resolve) => {
            const replyTo: ReplyTo<number> = { tell: (reply) => (resolve(reply), 'accepted') };
            tell({ type: 'ask', value, replyTo });
          }),
      ),
    close: () => {},
  };
}

interface Sum {
  total: number;
}

function newSum(): Sum {
  return { total: 0 };
}

function handle(sum: Sum, message: Message): void {
  if (message.type === 'add') sum.total += message.value;
  else if (message.type === 'ask') message.replyTo.tell(message.value);
  else message.done();
}

async function tellAll(count: number, sum: Sum, tell: (message: TellMessage) => void): Promise<void> {
  sum.total = 0;
  for (let sent = 0; sent < count; sent += tellWindow) {
    for (let value = 1; value <= tellWindow; value += 1) tell({ type: 'add', value });
    await new Promise<void>((resolve) => tell({ type: 'flush', done: resolve }));
  }
  check(sum.total, (count * (tellWindow + 1)) / 2);
}

async function askAll(count: number, inFlight: number, ask: (value: number) => Promise<number>): Promise<void> {
  let total = 0;
  for (let asked = 0; asked < count; asked += inFlight) {
    let left = inFlight;
    await new Promise<void>((resolve, reject) => {
      const onReply = (reply: number): void => {
        total += reply;
        left -= 1;
        if (left === 0) resolve();
      };
      for (let value = 1; value <= inFlight; value += 1) ask(asked + value).then(onReply, reject);
    });
  }
  check(total, (count * (count + 1)) / 2);
}

function check(actual: number, expected: number): void {
  if (actual !== expected) throw new Error(`the sum of what arrived is ${actual}; ${expected} was sent`);
}
