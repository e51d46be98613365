/**
 * Promotion from the first shadow to a policy taken back, on virtual time: the production gateway, router, devices and pickers of
 * a simulated fleet, the actor that follows the pointer, the desk that writes it, and a pretended store.
 */
import { describe, expect, it } from 'vitest';
import { gridKeys } from '#core/grid/keys.js';
import { hostId } from '#core/ids.js';
import { newDispatchCandidate, type DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { noPointer, versionId, type PolicyPointer } from '#core/scheduling/promotion.js';
import { policyFollowerActor } from '#actors/policy-follower/actor.js';
import { policyTools, promotionOf, type HostPolicy, type PromotionOptions } from '#compose/promotion.js';
import { batchingByName } from '#policies/batching/batching-by-name.js';
import type { BatchingPolicy } from '#policies/batching/batching-policy.js';
import { PromotedBatching } from '#policies/batching/batching-promoted.js';
import { dispatchByName } from '#policies/placement/dispatch-by-name.js';
import { PromotedDispatch } from '#policies/placement/dispatch-promoted.js';
import type { Clock, Timer } from '#ports/clock.js';
import { silentLog } from '#ports/log.js';
import type { PolicyOrder, PolicyOutcome } from '#ports/policy-admin.js';
import type { Store } from '#ports/store.js';
import { ActorSystem } from '#runtime/system.js';
import { PolicyDesk } from '#server/policy-desk.js';
import { fleetDispatch } from '#sim/fleet/fleet-dispatch.js';
import { fleetOutcomes } from '#sim/fleet/fleet-result.js';
import { runFleet, type FleetWorld } from '#sim/fleet/run-fleet.js';
import { silentMetrics } from '#sim/grid/silent-metrics.js';
import { PretendStore } from '#sim/pretend-store.js';
import { seededRandom } from '#sim/random.js';
import { VirtualClock } from '#sim/virtual-clock.js';
import { batchingBytes, calibrationJson, evaluationJson, linearNetwork, policyBytes } from '../scheduling/policies.js';
import { plainFleet, poisson } from './fleets.js';

const keys = gridKeys('test');
const host = hostId('a');
const wallStartMs = 1_700_000_000_000;

/** The time of a simulated fleet as a clock, with a wall clock that can jump. */
class WorldClock implements Clock {
  jumpMs = 0;
  readonly #world: FleetWorld;

  constructor(world: FleetWorld) {
    this.#world = world;
  }

  nowMs(): number {
    return this.#world.nowMs();
  }

  wallMs(): number {
    return wallStartMs + this.#world.nowMs() + this.jumpMs;
  }

  schedule(delayMs: number, task: () => void): Timer {
    let isOver = false;
    this.#world.schedule(Math.max(0, delayMs), () => {
      this.#world.awaits();
      if (!isOver) task();
    });
    return { cancel: () => (isOver = true) };
  }

  scheduleAt(momentMs: number, task: () => void): Timer {
    return this.schedule(momentMs - this.nowMs(), task);
  }

  defer(task: () => void): void {
    this.schedule(0, task);
  }
}

interface Gateway {
  readonly promoted: PromotedDispatch;
  readonly refused: string[];
  readonly takenBack: string[];
}

/** What a host has beside its gateway: the policy that decides, and the actor that follows the pointer. */
function follow(
  clock: Clock,
  store: Store,
  own: DispatchPolicy,
  batching: PromotionOptions['batching'] = { follow: () => undefined },
): Gateway {
  const promoted = new PromotedDispatch({ own, random: seededRandom('shadow') });
  const refused: string[] = [];
  const takenBack: string[] = [];
  const system = new ActorSystem({ host, clock, random: seededRandom('actors'), log: silentLog });
  system.spawn(
    'policy-follower',
    policyFollowerActor<HostPolicy>({
      // Without a clock of choices: what a busy machine takes to score has no part in virtual time.
      ...promotionOf({ own, promoted, clock, batching, metrics: silentMetrics }),
      ...{ host, store, keys },
      onRefused: (version) => refused.push(version),
      onTakenBack: (policy) => takenBack.push(policy),
    }),
  );
  return { promoted, refused, takenBack };
}

/** Who decided, and when, virtual ms. */
interface Decided {
  readonly atMs: number;
  readonly by: string;
}

/** The promoted policy, with every choice noted. */
function recording(promoted: PromotedDispatch, world: FleetWorld, decided: Decided[]): DispatchPolicy {
  return {
    name: 'seen',
    finished: (...told) => promoted.finished(...told),
    choose: (...asked) => {
      const chosen = promoted.choose(...asked);
      decided.push({ atMs: world.nowMs(), by: promoted.name });
      return chosen;
    },
  };
}

const order: PolicyOrder = {
  ...{ step: 'next', policy: '', artifact: new Uint8Array(), evaluationJson: '', calibrationJson: '', percent: 0 },
  ...{
    sliceSeconds: 10,
    seed: 3,
    reason: '',
    force: false,
    decisionsMin: 100,
    answersMin: 50,
    shareMinutesMin: 1,
    expectedRevision: -1,
  },
  dryRun: false,
};
// The soonest answer; and the device that takes longest.
const good = policyBytes('good', { network: linearNetwork({ 1: -1, 2: -1, 3: -1 }) });
const bad = policyBytes('bad', { network: linearNetwork({ 3: 1 }) });

describe('a promotion on virtual time', { timeout: 60_000 }, () => {
  it('goes from shadow to a share and to all, back by force, and back by itself when the policy is a bad one', async () => {
    const sloMs = { interactive: 60, standard: 60, batch: 60 };
    const fleet = plainFleet({ fast: { 1: 10 }, spare: { 1: 12 }, slow: { 1: 100 } }, { sloMs });
    const arrivals = poisson(fleet, 20, 4_400);
    const own: DispatchPolicy = { ...dispatchByName('jsq'), name: 'own rule' };
    const decided: Decided[] = [];
    const outcomes: (PolicyOutcome | Error)[] = [];
    const pointers: PolicyPointer[] = [];
    let gateway: Gateway | undefined;
    let events: readonly string[] = [];
    const result = await runFleet({
      ...{ fleet, arrivals, seed: 1 },
      dispatch: (world) => {
        const clock = new WorldClock(world);
        const store = new PretendStore({ clock });
        const { promoted } = (gateway = follow(clock, store.client('a'), own));
        const operator = store.client('operator');
        const desk = new PolicyDesk({ store: operator, keys, clock, host, tools: policyTools });
        const at = (ms: number, task: () => Promise<unknown>): void =>
          void clock.schedule(ms, () => {
            task().catch((error: unknown) => outcomes.push(error as Error));
          });
        const step = (ms: number, change: Partial<PolicyOrder>): void =>
          at(ms, async () => {
            outcomes.push(await desk.orderPolicy({ ...order, ...change }, { deadlineMs: Infinity }));
          });
        const look = (ms: number): void =>
          at(ms, async () => {
            pointers.push((await desk.policies({ deadlineMs: Infinity })).pointer);
          });
        step(10_000, { artifact: good, evaluationJson: evaluationJson(good), calibrationJson: calibrationJson() });
        step(11_000, { step: 'share', percent: 50 });
        step(40_000, { step: 'share', percent: 50 });
        world.schedule(75_000, () => (clock.jumpMs = 3_600_000));
        step(110_000, { step: 'all' });
        look(129_000);
        step(130_000, { step: 'rollback', reason: 'drill' });
        look(139_000);
        step(140_000, { step: 'shadow', artifact: bad });
        step(150_000, { step: 'share', percent: 50, force: true, reason: 'a bad one, planted' });
        look(210_000);
        at(211_000, async () => {
          const { entries } = await operator.range(keys.events, { deadlineMs: Infinity });
          events = entries.map(({ value }) => (JSON.parse(value) as { readonly text: string }).text);
        });
        return fleetDispatch(recording(promoted, world, decided))(world);
      },
    });

    // Nothing is lost in any switch.
    const lost = [...result.outcome].filter((each) => !['in-time', 'late'].includes(fleetOutcomes[each] ?? ''));
    expect(lost).toEqual([]);
    const errors = outcomes.filter((each) => each instanceof Error);
    expect(errors).toEqual([]);
    const given = outcomes as readonly PolicyOutcome[];
    expect(given.map(({ applied }) => applied)).toEqual([true, false, true, true, true, true, true]);
    // The shadow was asked about too few requests after a second.
    expect(given[1]?.gates.filter(({ passed }) => !passed).map(({ gate }) => gate)).toContain('shadow');
    const between = (from: number, to: number): ReadonlySet<string> =>
      new Set(decided.filter(({ atMs }) => atMs >= from && atMs < to).map(({ by }) => by));
    expect(between(0, 40_000)).toEqual(new Set(['own rule']));
    expect(between(42_000, 110_000)).toEqual(new Set(['own rule', 'good']));
    expect(between(112_000, 130_000)).toEqual(new Set(['good']));
    expect(between(132_000, 150_000)).toEqual(new Set(['own rule']));
    expect(pointers[0]).toMatchObject({ mode: 'all', previous: ['own'] });
    expect(pointers[1]).toMatchObject({ mode: 'rule', policy: 'own', reason: 'drill' });

    // Slices are whole, and a wall clock that jumps an hour moves none: every change is at a multiple of ten seconds.
    const trial = decided.filter(({ atMs }) => atMs >= 42_000 && atMs < 110_000);
    const changes = trial.filter(({ by }, index) => index > 0 && by !== trial[index - 1]?.by);
    expect(changes.length).toBeGreaterThan(1);
    for (const { atMs } of changes) expect((wallStartMs + atMs) % 10_000).toBeLessThan(1_000);

    // The bad one is taken back by the gateway that saw it.
    const id = versionId('bad', policyTools.sha256(bad));
    expect(gateway?.takenBack).toEqual([id]);
    expect(between(150_000, 210_000)).toEqual(new Set(['own rule', 'bad']));
    expect(pointers[2]).toMatchObject({ mode: 'rule', policy: 'own', previous: pointers[1]?.previous });
    expect(pointers[2]?.reason).toMatch(/^taken back by host a: .*(late|breaker)/);
    expect(events.find((text) => text.startsWith(`policy ${id} is taken back by host a`))).toBeDefined();
    const lastBad = decided.findLast(({ by }) => by === 'bad');
    expect(lastBad?.atMs).toBeLessThan(200_000);
  });
});

describe('a batching file that is promoted with its dispatch file', { timeout: 60_000 }, () => {
  it('forms batches in the same time slices, then always, and is taken back with it, and not as a shadow', async () => {
    const sloMs = { interactive: 60, standard: 60, batch: 60 };
    const fleet = plainFleet({ fast: { 1: 10 }, spare: { 1: 12 } }, { sloMs });
    const formed: Decided[] = [];
    const decided: Decided[] = [];
    const outcomes: (PolicyOutcome | Error)[] = [];
    const devices: PromotedBatching[] = [];
    const second = batchingBytes('good-batches');
    await runFleet({
      ...{ fleet, arrivals: poisson(fleet, 20, 2_000), seed: 1 },
      batching: (): BatchingPolicy => {
        const device = new PromotedBatching(batchingByName('triton'));
        devices.push(device);
        return {
          name: 'seen',
          decidesAlone: true,
          choose: (views, nowMs, choice) => {
            // The device does not ask a policy about a single queue when that does not decide alone.
            if (views.length > 1 || device.decidesAlone) device.choose(views, nowMs, choice);
            else [choice.queue, choice.itemsMax] = [0, Infinity];
            formed.push({ atMs: nowMs, by: device.name });
          },
        };
      },
      dispatch: (world) => {
        const clock = new WorldClock(world);
        const store = new PretendStore({ clock });
        const own: DispatchPolicy = { ...dispatchByName('jsq'), name: 'own rule' };
        const { promoted } = follow(clock, store.client('a'), own, {
          follow: (followed) => devices.forEach((device) => device.follow(followed)),
        });
        const desk = new PolicyDesk({ store: store.client('operator'), keys, clock, host, tools: policyTools });
        const step = (ms: number, change: Partial<PolicyOrder>): void =>
          void clock.schedule(ms, () => {
            desk
              .orderPolicy({ ...order, ...change, force: true, reason: 'drill' }, { deadlineMs: Infinity })
              .then((outcome) => outcomes.push(outcome))
              .catch((error: unknown) => outcomes.push(error as Error));
          });
        step(5_000, { step: 'shadow', artifact: good, batching: second });
        step(15_000, { step: 'share', percent: 50 });
        step(60_000, { step: 'all' });
        step(75_000, { step: 'rollback' });
        return fleetDispatch(recording(promoted, world, decided))(world);
      },
    });

    expect(outcomes.filter((each) => each instanceof Error)).toEqual([]);
    expect((outcomes as readonly PolicyOutcome[]).map(({ applied }) => applied)).toEqual([true, true, true, true]);
    const between = (from: number, to: number): ReadonlySet<string> =>
      new Set(formed.filter(({ atMs }) => atMs >= from && atMs < to).map(({ by }) => by));
    expect(between(0, 15_000)).toEqual(new Set(['triton']));
    expect(between(17_000, 60_000)).toEqual(new Set(['triton', 'good-batches']));
    expect(between(62_000, 75_000)).toEqual(new Set(['good-batches']));
    expect(between(77_000, 200_000)).toEqual(new Set(['triton']));
    // In every slice both files decide, or neither does; a second at its ends is left for what was on its way.
    const sliceOf = (atMs: number): number => Math.floor((wallStartMs + atMs) / 10_000);
    const within = (atMs: number): boolean =>
      atMs >= 17_000 && atMs < 60_000 && (wallStartMs + atMs) % 10_000 > 1_000 && (wallStartMs + atMs) % 10_000 < 9_000;
    const learnedSlices = (rows: typeof formed, name: string): readonly number[] =>
      [...new Set(rows.filter(({ atMs, by }) => within(atMs) && by === name).map(({ atMs }) => sliceOf(atMs)))].sort();
    expect(learnedSlices(formed, 'good-batches')).toEqual(learnedSlices(decided, 'good'));
    expect(learnedSlices(formed, 'good-batches')).not.toEqual([]);
    expect((outcomes[3] as PolicyOutcome).book.pointer).toMatchObject({ mode: 'rule', policy: 'own' });
  });
});

describe('a gateway that follows the pointer', () => {
  const id = versionId('good', policyTools.sha256(good));
  const whole = Buffer.from(good).toString('base64');

  async function started(
    artifact: string,
    sha256: string,
    second?: { readonly artifact?: string; readonly sha256: string },
  ): Promise<{ gateway: Gateway; texts: string[]; clock: VirtualClock }> {
    const clock = new VirtualClock();
    const store = new PretendStore({ clock });
    const operator = store.client('operator');
    const gateway = follow(clock, store.client('a'), dispatchByName('jsq'));
    const version = {
      ...{ format: 1, id, name: 'good', sha256, bytes: 1, fallback: 'sed', notes: {}, host: 'a', wallMs: 0 },
      ...(second === undefined ? {} : { batching: { sha256: second.sha256, bytes: 1 } }),
    };
    const pointer: PolicyPointer = { ...noPointer, number: 1, mode: 'all', policy: id, base: id };
    const puts = [
      [keys.policyVersion(id), JSON.stringify(version)],
      [keys.policyArtifact(id), artifact],
      ...(second?.artifact === undefined ? [] : [[keys.policyBatching(id), second.artifact] as const]),
      [keys.policyPointer, JSON.stringify(pointer)],
    ] as const;
    const work = operator.transact(
      { conditions: [], operations: puts.map(([key, value]) => ({ type: 'put', key, value })) },
      { deadlineMs: Infinity },
    );
    await turn(clock, 20_000);
    await work;
    const reading = operator.range(keys.events, { deadlineMs: Infinity });
    await turn(clock, 1_000);
    const texts = (await reading).entries.map(({ value }) => (JSON.parse(value) as { readonly text: string }).text);
    return { gateway, texts, clock };
  }

  it('decides by a version that is whole', async () => {
    const { gateway, texts } = await started(whole, policyTools.sha256(good));
    expect(gateway.refused).toEqual([]);
    expect(texts).toEqual([]);
    expect(choiceOf(gateway.promoted)).toBe('good');
  });

  it('refuses a version that is damaged, of another schema or gives no numbers, says so once, and its rule decides', async () => {
    const schema = policyBytes('good', { schema: 'dispatch-99' });
    const nan = policyBytes('good', { nan: true });
    for (const [bytes, sha256, reason] of [
      [good.slice(0, good.length - 9), policyTools.sha256(good), /its record names/],
      [schema, policyTools.sha256(schema), /its features are of schema 'dispatch-99'/],
      [nan, policyTools.sha256(nan), /not finite/],
    ] as const) {
      const { gateway, texts } = await started(Buffer.from(bytes).toString('base64'), sha256);
      expect(gateway.refused).toEqual([id]);
      expect(texts).toHaveLength(1);
      expect(texts[0]).toMatch(reason);
      expect(choiceOf(gateway.promoted)).toBe('jsq');
    }
  });

  it('refuses a version whose batching file is damaged, missing or decides about something else, dispatch file and all', async () => {
    const second = batchingBytes('good-batches');
    const text = Buffer.from(second).toString('base64');
    const sha256 = policyTools.sha256(second);
    const { gateway: taken } = await started(whole, policyTools.sha256(good), { artifact: text, sha256 });
    expect(choiceOf(taken.promoted)).toBe('good');
    for (const [stored, reason] of [
      [{ artifact: whole, sha256 }, /its record names/],
      [{ sha256 }, /its batching file is not in the store/],
      [{ artifact: whole, sha256: policyTools.sha256(good) }, /a batching policy is needed/],
    ] as const) {
      const { gateway, texts } = await started(whole, policyTools.sha256(good), stored);
      expect(gateway.refused).toEqual([id]);
      expect(texts[0]).toMatch(reason);
      expect(choiceOf(gateway.promoted)).toBe('jsq');
    }
  });
});

/** Name of whoever decides now. */
function choiceOf(promoted: PromotedDispatch): string {
  const request = {
    model: 'm',
    items: 1,
    sloMs: 100,
    class: 'standard',
    nowMs: 1e6,
    arrivedMs: 1e6,
    mayShed: false,
  } as const;
  const fleet = { load1s: 0, load30s: 0, burstiness: 1, interactiveShare: 0, hourPhase: 0, usdPerKwh: 0 };
  promoted.choose(request, [newDispatchCandidate()], fleet, seededRandom('dice'));
  return promoted.name;
}

/** Virtual time with promises going on between its tasks. */
async function turn(clock: VirtualClock, durationMs: number): Promise<void> {
  const endMs = clock.nowMs() + durationMs;
  while (clock.nowMs() < endMs) {
    clock.runUntil(Math.min(endMs, clock.nowMs() + 50));
    await new Promise((resolve) => setImmediate(resolve));
  }
}
