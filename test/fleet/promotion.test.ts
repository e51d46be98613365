/**
 * Promotion from the first shadow to a policy taken back, on virtual time: the production gateway, router, devices and pickers of
 * a simulated fleet, the actor that follows the pointer, the desk that writes it, and a pretended store.
 */
import { describe, expect, it } from 'vitest';
import { intarsiaError } from '#core/errors.js';
import { gridKeys } from '#core/grid/keys.js';
import { hostId } from '#core/ids.js';
import { newDispatchCandidate, type DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { noPointer, versionId, type PolicyPointer } from '#core/scheduling/promotion.js';
import { policyFollowerActor } from '#actors/policy-follower/actor.js';
import { policyTools } from '#compose/promotion.js';
import { dispatchByName } from '#policies/placement/dispatch-by-name.js';
import { dispatchFromFile } from '#policies/placement/dispatch-from-file.js';
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
import { PretendStore } from '#sim/pretend-store.js';
import { seededRandom } from '#sim/random.js';
import { VirtualClock } from '#sim/virtual-clock.js';
import { evaluationJson, linearNetwork, policyBytes } from '../scheduling/policies.js';
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
      if (!isOver) task();
    });
    return { cancel: () => (isOver = true) };
  }

  scheduleAt(momentMs: number, task: () => void): Timer {
    return this.schedule(momentMs - this.nowMs(), task);
  }

  defer(task: () => void): void {
    this.#world.schedule(0, task);
  }
}

interface Gateway {
  readonly promoted: PromotedDispatch;
  readonly refused: string[];
  readonly takenBack: string[];
}

/** What a host has beside its gateway: the policy that decides, and the actor that follows the pointer. */
function follow(clock: Clock, store: Store, own: DispatchPolicy): Gateway {
  const promoted = new PromotedDispatch({ own, random: seededRandom('shadow') });
  const refused: string[] = [];
  const takenBack: string[] = [];
  const system = new ActorSystem({ host, clock, random: seededRandom('actors'), log: silentLog });
  system.spawn(
    'policy-follower',
    policyFollowerActor<DispatchPolicy>({
      ...{ host, store, keys },
      ruleOf: (reference) => (reference === 'own' ? own : dispatchByName(reference)),
      versionOf: (text, sha256) => {
        const bytes = Buffer.from(text, 'base64');
        if (policyTools.sha256(bytes) !== sha256) throw intarsiaError('ARTIFACT_DAMAGED', 'the digest is another', {});
        // Without a clock: what a busy machine takes to score has no part in virtual time.
        return dispatchFromFile(bytes);
      },
      follow: (pointer, policy, base) => {
        const nowMs = clock.nowMs();
        promoted.follow({ pointer, policy, base, nowMs, wallOffsetMs: clock.wallMs() - nowMs });
      },
      look: () => ({ sighting: promoted.sighting(), verdict: promoted.verdict }),
      onRefused: (version) => refused.push(version),
      onTakenBack: (policy) => takenBack.push(policy),
    }),
  );
  return { promoted, refused, takenBack };
}

const order: PolicyOrder = {
  ...{ step: 'next', policy: '', artifact: new Uint8Array(), evaluationJson: '', calibrationJson: '', percent: 0 },
  ...{ sliceSeconds: 10, seed: 3, reason: '', force: false, decisionsMin: 100, answersMin: 50, expectedRevision: -1 },
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
    const decided: { readonly atMs: number; readonly by: string }[] = [];
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
          world.schedule(ms, () => {
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
        step(10_000, { artifact: good, evaluationJson: evaluationJson(good) });
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
        const seen: DispatchPolicy = {
          name: 'seen',
          finished: (...told) => promoted.finished(...told),
          choose: (...asked) => {
            const chosen = promoted.choose(...asked);
            decided.push({ atMs: world.nowMs(), by: promoted.name });
            return chosen;
          },
        };
        return fleetDispatch(seen)(world);
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

describe('a gateway that follows the pointer', () => {
  const id = versionId('good', policyTools.sha256(good));
  const whole = Buffer.from(good).toString('base64');

  async function started(
    artifact: string,
    sha256: string,
  ): Promise<{ gateway: Gateway; texts: string[]; clock: VirtualClock }> {
    const clock = new VirtualClock();
    const store = new PretendStore({ clock });
    const operator = store.client('operator');
    const gateway = follow(clock, store.client('a'), dispatchByName('jsq'));
    const version = { format: 1, id, name: 'good', sha256, bytes: 1, fallback: 'sed', notes: {}, host: 'a', wallMs: 0 };
    const pointer: PolicyPointer = { ...noPointer, number: 1, mode: 'all', policy: id, base: id };
    const puts = [
      [keys.policyVersion(id), JSON.stringify(version)],
      [keys.policyArtifact(id), artifact],
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
      [good.slice(0, good.length - 9), policyTools.sha256(good), /the digest is another/],
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
