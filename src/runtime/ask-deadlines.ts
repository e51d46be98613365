/**
 * The deadlines of all questions that wait. Nearly every question is answered long before its deadline, so joining and
 * leaving must cost next to nothing: questions are linked into spans of time, one timer of the clock a span, and only
 * when a span begins do those that are still in it get timers of their own, for their exact moments.
 */
import type { Clock, Timer } from '#ports/clock.js';

/** Width of a span, ms. Wider: fewer timers, more questions that get one of their own. */
const spanMs = 100;

/** Something that ends at a moment, linked into the span of that moment. */
export interface Deadlined {
  readonly deadlineMs: number;
  /** Neighbours in the span; the first of a span has no `earlier`. Written by the deadlines only. */
  earlier: Deadlined | undefined;
  later: Deadlined | undefined;
  span: Span | undefined;
  timer: Timer | undefined;
  /** Its deadline has come; it has left the deadlines. */
  onDeadline(): void;
}

export interface Span {
  readonly number: number;
  first: Deadlined | undefined;
  timer: Timer | undefined;
  isToBeTidied: boolean;
}

export class AskDeadlines {
  private readonly clock: Clock;
  private readonly spans = new Map<number, Span>();
  private latest: Span | undefined;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** Only with a finite deadline. One that has passed comes at once. */
  add(item: Deadlined): void {
    const number = Math.floor(item.deadlineMs / spanMs);
    const span = this.latest?.number === number ? this.latest : (this.spans.get(number) ?? this.newSpan(number));
    if (span === undefined) {
      this.addExact(item);
      return;
    }
    this.latest = span;
    item.span = span;
    item.earlier = undefined;
    item.later = span.first;
    if (span.first !== undefined) span.first.earlier = item;
    span.first = item;
  }

  /** What has left already stays away. */
  remove(item: Deadlined): void {
    item.timer?.cancel();
    item.timer = undefined;
    const { span } = item;
    if (span === undefined) return;
    item.span = undefined;
    if (item.earlier === undefined) span.first = item.later;
    else item.earlier.later = item.later;
    if (item.later !== undefined) item.later.earlier = item.earlier;
    if (span.first === undefined) this.tidySoon(span);
  }

  /** Undefined when the span has begun. The clock is read here only: once a span, not once a question. */
  private newSpan(number: number): Span | undefined {
    if (number * spanMs <= this.clock.nowMs()) return undefined;
    const span: Span = { number, first: undefined, timer: undefined, isToBeTidied: false };
    span.timer = this.clock.scheduleAt(number * spanMs, () => this.begin(span));
    this.spans.set(number, span);
    return span;
  }

  private addExact(item: Deadlined): void {
    if (item.deadlineMs <= this.clock.nowMs()) item.onDeadline();
    else item.timer = this.clock.scheduleAt(item.deadlineMs, () => item.onDeadline());
  }

  /** Looks in a moment whether the span is still empty: with one question after the other it is in use again by then. */
  private tidySoon(span: Span): void {
    if (span.isToBeTidied) return;
    span.isToBeTidied = true;
    this.clock.defer(() => {
      span.isToBeTidied = false;
      if (span.first !== undefined || this.spans.get(span.number) !== span) return;
      span.timer?.cancel();
      this.leave(span);
    });
  }

  private leave(span: Span): void {
    this.spans.delete(span.number);
    if (this.latest === span) this.latest = undefined;
  }

  private begin(span: Span): void {
    this.leave(span);
    const items: Deadlined[] = [];
    for (let item = span.first; item !== undefined; item = item.later) items.push(item);
    // The first to have joined is last in the list; equal deadlines end in the order of the questions.
    for (const item of items.reverse()) {
      // The end of one question may have ended another.
      if (item.span !== span) continue;
      item.span = undefined;
      this.addExact(item);
    }
  }
}
