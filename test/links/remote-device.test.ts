/** Requests that a gateway sends to devices of another host: one outcome each, whatever becomes of host and link. */
import { describe, expect, it } from 'vitest';
import { ingressActor } from '#actors/ingress/actor.js';
import { ingressPath } from '#actors/ingress/protocol.js';
import { peerActor } from '#actors/peer/actor.js';
import { PeerDesk, type PeerDeskOptions } from '#actors/peer/peer-desk.js';
import type { DeviceMessage } from '#actors/device/protocol.js';
import { intarsiaError } from '#core/errors.js';
import { deviceId, hostId, modelName, modelVersion, type RequestId } from '#core/ids.js';
import type { InferenceOutcome, InferenceRequest } from '#core/inference.js';
import { entranceOf, PretendNetwork, Simulation } from '#testing.js';

const cpu = deviceId('cpu:0');

/** Two hosts; the far one has a device that keeps what it is told and answers on command. */
function grid(options: Partial<PeerDeskOptions> & { readonly requestsMaxFar?: number } = {}) {
  const world = new Simulation();
  const network = new PretendNetwork({ clock: world.clock, random: world.random.stream('network'), log: world.log });
  const join = (name: string) => {
    const links = network.host(name);
    const system = world.system({ host: name, remote: links, incarnationMin: links.incarnationMin });
    links.attach(entranceOf(system));
    return { links, system };
  };
  const near = join('near');
  const far = join('far');
  const told: DeviceMessage[] = [];
  const device = far.system.spawn<DeviceMessage>('device-cpu:0', () => ({
    receive: (message) => void told.push(message),
  }));
  far.system.spawn(
    ingressPath,
    ingressActor({
      deviceOf: (id) => (id === cpu ? device : undefined),
      ...(options.requestsMaxFar === undefined ? {} : { requestsMax: options.requestsMaxFar }),
    }),
  );
  const desk = new PeerDesk({ host: hostId('far'), clock: world.clock, links: near.links, ...options });
  const peer = near.system.spawn('peer-far', peerActor(desk));
  world.clock.runDue();
  const outcomes: [number, InferenceOutcome][] = [];
  const infer = (id: number, name = cpu) =>
    desk.device(name).tell({
      type: 'infer',
      request: { ...request, id: id as RequestId, deadlineMs: world.clock.nowMs() + 500 },
      replyTo: {
        tell: (outcome) => {
          outcomes.push([id, outcome]);
          return 'accepted';
        },
      },
    });
  const infers = () => told.filter((message) => message.type === 'infer');
  return { world, network, near, far, desk, peer, told, infers, outcomes, infer };
}

const data = new Uint8Array(4096).fill(5);
const request: InferenceRequest = {
  id: 1 as RequestId,
  model: modelName('affine'),
  version: modelVersion('1'),
  inputs: [{ name: 'x', datatype: 'UINT8', shape: [1, 4096], data }],
  outputs: [],
  items: 1,
  batchKey: 'k',
  bytes: 4096,
  priority: 0,
  queueTimeoutUs: 0,
  deadlineMs: Infinity,
  billing: { tenant: 'anonymous', project: '', user: '' } as InferenceRequest['billing'],
  arrivedMs: 0,
};

const success: InferenceOutcome = {
  ok: true,
  outputs: [{ name: 'y', datatype: 'UINT8', shape: [1, 4096], data }],
  receipt: {
    device: cpu,
    emulated: false,
    queueUs: 1,
    computeInputUs: 1,
    computeInferUs: 1,
    computeOutputUs: 1,
    linkUs: 10,
    batchItems: 1,
    billedUnits: 1,
    unit: 'items',
    billing: request.billing,
  },
};

describe('a device of another host', () => {
  it('take along what is left of their target, because they arrive anew over there', () => {
    const { world, desk, infers } = grid();
    const ask = (arrivedMs: number, sloMs?: number): void => {
      const own = { ...request, arrivedMs, deadlineMs: Infinity, ...(sloMs === undefined ? {} : { sloMs }) };
      desk.device(cpu).tell({ type: 'infer', request: own, replyTo: { tell: () => 'accepted' } });
    };
    world.clock.runUntil(1000);
    ask(970, 100);
    ask(100, 100);
    ask(970);
    world.clock.runUntil(2000);
    const arrived = infers().map((message) => message.request);
    expect(arrived.map(({ sloMs }) => sloMs)).toEqual([70, 0.001, undefined]);
    for (const { arrivedMs } of arrived) expect(arrivedMs).toBeGreaterThanOrEqual(1000);
  });

  it('computes for this one: the bytes arrive, the deadline is on its clock, the receipt says what the link took', async () => {
    const { world, infer, infers, outcomes, desk } = grid();
    await world.clock.settleUntil(1_000);
    expect(infer(1)).toBe('accepted');
    await world.clock.settleUntil(1_010);
    const [message] = infers();
    if (message?.type !== 'infer') throw new Error('the request did not arrive');
    expect(message.request.inputs).toEqual(request.inputs);
    expect(message.request.id).not.toBe(1);
    expect(message.request.deadlineMs).toBeGreaterThan(1_500);
    expect(message.request.deadlineMs).toBeLessThan(1_502);
    await world.clock.settleUntil(1_050);
    message.replyTo.tell(success);
    await world.clock.settleUntil(1_100);
    const [, outcome] = outcomes[0] ?? [];
    if (outcome?.ok !== true) throw new Error('no success');
    expect(outcome.outputs).toEqual(success.outputs);
    // Hello, welcome, request and answer at 0.2 to 0.4 ms each, plus the 10 us of the executor.
    expect(outcome.receipt.linkUs).toBeGreaterThan(400);
    expect(outcome.receipt.linkUs).toBeLessThan(2_000);
    expect(desk.inFlight).toBe(0);
    await world.clock.settle();
    expect(world.clock.pending).toBe(0);
  });

  it('fails every request in flight, retryably, when its host is killed or unplugged', async () => {
    for (const how of ['killed', 'unplugged'] as const) {
      const { world, network, infer, outcomes, desk, infers } = grid();
      for (let id = 1; id <= 5; id += 1) infer(id);
      await world.clock.settleUntil(100);
      expect(infers()).toHaveLength(5);
      network.crash('far', how);
      await world.clock.settleUntil(how === 'killed' ? 101 : 6_000);
      expect(outcomes.map(([id]) => id)).toEqual([1, 2, 3, 4, 5]);
      for (const [, outcome] of outcomes) {
        expect(outcome).toMatchObject({ ok: false, error: { code: 'DEVICE_UNAVAILABLE', retryable: true } });
      }
      expect(desk.inFlight).toBe(0);
    }
  });

  it('fails what is in flight when only its answers get lost on the way', async () => {
    const { world, network, infer, outcomes, infers } = grid();
    infer(1);
    await world.clock.settleUntil(100);
    network.cutOneWay('far', 'near');
    const [message] = infers();
    if (message?.type === 'infer') message.replyTo.tell(success);
    await world.clock.settleUntil(10_000);
    expect(outcomes).toMatchObject([[1, { ok: false, error: { code: 'DEVICE_UNAVAILABLE' } }]]);
    expect(network.counts.cut).toBeGreaterThan(0);
  });

  it('hears of a cancel, and the gateway has its outcome at once', async () => {
    const { world, infer, outcomes, desk, told, infers } = grid();
    infer(7);
    await world.clock.settleUntil(100);
    desk.device(cpu).tell({ type: 'cancel', request: 7 as RequestId, model: request.model, version: request.version });
    expect(outcomes).toMatchObject([[7, { ok: false, error: { code: 'CANCELLED' } }]]);
    await world.clock.settleUntil(200);
    const [first] = infers();
    expect(told.at(-1)).toMatchObject({
      type: 'cancel',
      request: first?.type === 'infer' ? first.request.id : -1,
      model: request.model,
    });
    if (first?.type === 'infer') first.replyTo.tell(success);
    await world.clock.settleUntil(300);
    expect(outcomes).toHaveLength(1);
  });

  it('is told to stop what a lost gateway asked for', async () => {
    const { world, network, near, infer, told } = grid();
    infer(1);
    infer(2);
    await world.clock.settleUntil(100);
    network.crash('near', 'unplugged');
    near.system.terminate();
    await world.clock.settleUntil(10_000);
    expect(told.filter(({ type }) => type === 'cancel')).toHaveLength(2);
  });

  it('passes on what fails over there with its code, and says which device is not there', async () => {
    const { world, infer, outcomes, infers } = grid();
    infer(1);
    infer(2, deviceId('cuda:9'));
    await world.clock.settleUntil(100);
    const [message] = infers();
    if (message?.type === 'infer') {
      message.replyTo.tell({ ok: false, error: intarsiaError('EXECUTION_FAILED', 'bad shape', { node: 'Conv_3' }) });
    }
    await world.clock.settleUntil(200);
    expect(new Map(outcomes).get(1)).toMatchObject({
      ok: false,
      error: { code: 'EXECUTION_FAILED', message: 'bad shape', details: { node: 'Conv_3' } },
    });
    expect(new Map(outcomes).get(2)).toMatchObject({
      ok: false,
      error: { code: 'DEVICE_UNAVAILABLE', message: 'host far has no device cuda:9' },
    });
  });

  it('takes no more than its bounds, here and over there', async () => {
    const here = grid({ requestsMax: 2 });
    expect([here.infer(1), here.infer(2), here.infer(3)]).toEqual(['accepted', 'accepted', 'full']);
    const bytes = grid({ bytesMax: 8192 });
    expect([bytes.infer(1), bytes.infer(2), bytes.infer(3)]).toEqual(['accepted', 'accepted', 'full']);
    const there = grid({ requestsMaxFar: 2 });
    for (const id of [1, 2, 3]) there.infer(id);
    await there.world.clock.settleUntil(100);
    expect(there.outcomes).toMatchObject([[3, { ok: false, error: { code: 'QUEUE_FULL', retryable: true } }]]);
    expect(there.infers()).toHaveLength(2);
  });

  it('fails what is in flight when its peer is stopped, and takes nothing after', async () => {
    const { world, near, peer, infer, outcomes } = grid();
    infer(1);
    await world.clock.settleUntil(100);
    near.system.stop(peer);
    await world.clock.settleUntil(101);
    expect(outcomes).toMatchObject([[1, { ok: false, error: { code: 'DEVICE_UNAVAILABLE' } }]]);
    expect(infer(2)).toBe('stopped');
  });
});
