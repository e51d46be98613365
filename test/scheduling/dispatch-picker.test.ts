import { describe, expect, it } from 'vitest';
import { noParameters, type InferParameter, type InferRequestMessage } from '#core/inference-message.js';
import { completeConfig } from '#config.js';
import { apiGroups } from '#core/api-group.js';
import { emptyCatalog } from '#core/catalog.js';
import type { IntarsiaError } from '#core/errors.js';
import {
  anonymousTenant,
  artifactDigest,
  deviceId,
  hostId,
  modelName,
  modelVersion,
  replicaId,
  type RequestId,
} from '#core/ids.js';
import type { InferenceRequest } from '#core/inference.js';
import { shedPick, type Candidate } from '#core/picker.js';
import { newHostStanding, newReplicaStanding, newDeviceStanding } from '#core/grid/standing.js';
import { DispatchLedger } from '#core/scheduling/dispatch-ledger.js';
import { unknownDevice, unknownReplica, type FleetBook } from '#core/scheduling/fleet-book.js';
import { LedgerObserver } from '#core/scheduling/ledger-observer.js';
import { dispatchByName } from '#policies/placement/dispatch-by-name.js';
import type { DispatchDecision } from '#core/scheduling/dispatch-decision.js';
import { dispatchPicker } from '#policies/placement/dispatch-picker.js';
import type { DeviceMessage } from '#actors/device/protocol.js';
import type { ServedModel } from '#core/catalog.js';
import type { ModelConfig } from '#core/model-config.js';
import { exportDispatchMetrics } from '#server/dispatch-metrics.js';
import type { SloClass } from '#core/scheduling/slo-class.js';
import type { Caller } from '#ports/inference-gateway.js';
import { createAccess } from '#server/access.js';
import { createGateway } from '#server/gateway.js';
import { PublishedRouter } from '#server/router.js';
import { RecordingMetrics } from '#sim/recording-metrics.js';
import { seededRandom } from '#sim/random.js';
import { VirtualClock } from '#sim/virtual-clock.js';

const model = modelName('m');
const version = modelVersion('1');
const host = hostId('h');
const digest = artifactDigest('a'.repeat(64));
const nobody: ReadonlySet<string> = new Set();

function candidate(device: string, part: Partial<Candidate> = {}): Candidate {
  const stages = [{ digest, host, device: deviceId(device) }];
  return {
    replica: { id: replicaId(`m/1@h/${device}`), model, version, stages },
    load: { itemsInFlight: 0, msPerItem: 0, ready: true },
    ...part,
  };
}

/** `slow` takes 40 ms and costs little, `fast` takes 10 ms and costs much. */
const book: FleetBook = {
  revision: 0,
  device: (key) => ({ ...unknownDevice, usdPerHour: key.endsWith('slow') ? 0.1 : 4 }),
  replica: ({ id }) => ({
    ...unknownReplica,
    itemsMax: 4,
    profile: { batches: [1, 4], ms: id.endsWith('slow') ? [40, 44] : [10, 12], spread: 0 },
  }),
};

let nextId = 1;
function request(part: Partial<InferenceRequest> = {}): InferenceRequest {
  const id = nextId as RequestId;
  nextId += 1;
  return { id, model, version, items: 1, deadlineMs: Infinity, arrivedMs: 0, ...part } as InferenceRequest;
}

function setUp(policy = 'cheapest-feasible:1') {
  const ledger = new DispatchLedger({ book });
  const decisions: number[] = [];
  const picker = dispatchPicker({
    policy: dispatchByName(policy),
    ledger,
    random: seededRandom(1),
    onDecision: ({ chosen }: DispatchDecision) => decisions.push(chosen),
  });
  return { ledger, picker, observer: new LedgerObserver(ledger), decisions };
}

const anybody: Caller = { tenant: anonymousTenant, namesTenant: true, mayUse: () => true };

describe('dispatch picker', () => {
  const both = [candidate('slow'), candidate('fast')];

  it('weighs cost against the time that a request names, by its target, its class or its deadline', () => {
    const { picker } = setUp();
    expect(picker.pick(request({ sloMs: 100 }), both, 0, nobody)).toBe(0);
    expect(picker.pick(request({ sloMs: 30 }), both, 0, nobody)).toBe(1);
    expect(picker.pick(request({ deadlineMs: 30 }), both, 0, nobody)).toBe(1);
    expect(picker.pick(request({ sloClass: 'batch' }), both, 0, nobody)).toBe(0);
  });

  it('answers a request that names no time as soon as possible, or by the picker it was given for these', () => {
    expect(setUp().picker.pick(request(), both, 0, nobody)).toBe(1);
    const asked: string[] = [];
    const picker = dispatchPicker({
      policy: dispatchByName('sed'),
      ledger: new DispatchLedger({ book }),
      random: seededRandom(1),
      untimed: { policy: 'other', pick: () => asked.push('untimed') },
    });
    picker.pick(request(), both, 0, nobody);
    picker.pick(request({ sloMs: 5 }), both, 0, nobody);
    expect(asked).toEqual(['untimed']);
  });

  it('sees what it sent a moment ago and moves on when the cheap device is full', () => {
    const { picker, observer } = setUp();
    const chosen = Array.from({ length: 8 }, () => {
      const each = request({ sloMs: 100 });
      const index = picker.pick(each, both, 0, nobody);
      observer.began(both[index] as Candidate, each, 0);
      return index;
    });
    // One runs for 40 ms, four share the batch after it, which ends at 84 ms; the next would be late there.
    expect(chosen).toEqual([0, 0, 0, 0, 0, 1, 1, 1]);
  });

  it('never picks what is not ready, banned or has failed the request, and forgets bans when told to', () => {
    const { picker } = setUp();
    const banned = newReplicaStanding(newHostStanding(host, true), { ...newDeviceStanding(), bannedUntilMs: 500 }, 1);
    const all = [
      candidate('slow', { load: { itemsInFlight: 0, msPerItem: 0, ready: false } }),
      candidate('fast', { standing: banned }),
    ];
    expect(picker.pick(request({ sloMs: 100 }), all, 0, nobody)).toBe(-1);
    expect(picker.pick(request({ sloMs: 100 }), all, Infinity, nobody)).toBe(1);
    expect(picker.pick(request({ sloMs: 100 }), all, Infinity, new Set(['m/1@h/fast']))).toBe(-1);
    expect(picker.pick(request({ sloMs: 100 }), all, 500, nobody)).toBe(1);
  });

  it('refuses what its class sheds, says why, and serves the others late', () => {
    const { picker, decisions } = setUp();
    expect(picker.pick(request({ sloMs: 5, sloClass: 'interactive' }), both, 2, nobody)).toBe(shedPick);
    expect(picker.explainShed()).toEqual({ class: 'interactive', sloMs: 5, soonestMs: 12 });
    expect(picker.pick(request({ sloMs: 5, sloClass: 'standard' }), both, 2, nobody)).toBe(1);
    expect(picker.pick(request({ sloMs: 5 }), both, 2, nobody)).toBe(1);
    expect(decisions).toEqual([-1, 1, 1]);
  });

  it('looks at some of very many replicas and reaches all of them', () => {
    const { picker, observer } = setUp('sed');
    const many = Array.from({ length: 400 }, (_, index) => candidate(`fast${index}`));
    const chosen = new Set<number>();
    for (let index = 0; index < 1500; index += 1) {
      const each = request({ sloMs: 1000 });
      const pick = picker.pick(each, many, 0, nobody);
      observer.began(many[pick] as Candidate, each, 0);
      chosen.add(pick);
    }
    expect(chosen.size).toBe(400);
  });
});

describe('a gateway with a dispatch picker', () => {
  const setUpGateway = (parameters: ReadonlyMap<string, string> = new Map()) => {
    const clock = new VirtualClock();
    const router = new PublishedRouter();
    const { picker, observer } = setUp();
    const told: DeviceMessage[] = [];
    const served: ServedModel = {
      name: model,
      version,
      config: { name: 'm', maxBatchSize: 4, parameters } as unknown as ModelConfig,
      inputs: [{ name: 'x', datatype: 'FP32', shape: [-1, 1] }],
      outputs: [{ name: 'x', datatype: 'FP32', shape: [-1, 1] }],
      optionalInputs: new Set(),
      digest,
      labels: new Map(),
      devices: [deviceId('fast')],
    };
    const entry = {
      name: model,
      versions: [],
      served: new Map([[version, served]]),
      defaultVersion: version,
      reason: '',
    };
    const catalog = { ...emptyCatalog, models: new Map([[model, entry as never]]) };
    router.publish({ catalog, candidates: new Map([[model, new Map([[version, [candidate('fast')]]])]]), picker });
    router.setDevice(host, deviceId('fast'), {
      tell: (message) => {
        told.push(message);
        return 'accepted';
      },
    });
    const gateway = createGateway({ router, clock, bytesInFlightMax: 1e6, receipts: false, attemptObserver: observer });
    const infer = (given: Record<string, InferParameter>, caller: Caller = anybody): IntarsiaError | undefined => {
      let error: IntarsiaError | undefined;
      const message: InferRequestMessage = {
        modelName: 'm',
        modelVersion: '',
        id: '',
        parameters: new Map(Object.entries(given)),
        inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 1], parameters: noParameters, data: new Uint8Array(4) }],
        outputs: [],
        rawContents: true,
      };
      const call = {
        deadlineMs: Infinity,
        messageBytes: 10,
        sloMs: 0,
        reservedParameters: new Set<string>(),
        traceparent: undefined,
        caller,
      };
      gateway.infer(message, call, { succeed: () => undefined, fail: (reason) => (error = reason) });
      return error;
    };
    return { infer, told, gateway, picker };
  };

  it('answers a request that is shed with RESOURCE_EXHAUSTED, its class and the soonest answer, and tells no device', () => {
    const { infer, told, gateway } = setUpGateway();
    const text = (value: string): InferParameter => ({ kind: 'string', value });
    const shed = infer({ intarsia_slo_class: text('interactive'), intarsia_slo_ms: { kind: 'double', value: 5 } });
    expect(shed?.code).toBe('RESOURCE_EXHAUSTED');
    expect(shed?.message).toBe(
      "shed: this interactive request to model 'm' should be answered within 5 ms and would be after 10.0 ms at the soonest",
    );
    expect(shed?.details).toEqual({ reason: 'shed', class: 'interactive', sloMs: 5, soonestMs: 10 });
    expect(told).toEqual([]);
    expect(gateway.requestsInFlight).toBe(0);
    expect(
      infer({ intarsia_slo_class: text('interactive'), intarsia_slo_ms: { kind: 'double', value: 50 } }),
    ).toBeUndefined();
    expect(told.map(({ type }) => type)).toEqual(['infer']);
    expect(infer({ intarsia_slo_class: text('urgent') })?.message).toMatch(
      /'intarsia_slo_class' is 'urgent'; it may be interactive, standard, batch/u,
    );
  });

  it('takes the target and the class of the model where the request has none, and refuses a model whose target is none', () => {
    const strict = setUpGateway(
      new Map([
        ['intarsia_slo_ms', '5'],
        ['intarsia_slo_class', 'interactive'],
      ]),
    );
    expect(strict.infer({})?.details).toMatchObject({ reason: 'shed', class: 'interactive', sloMs: 5 });
    expect(strict.infer({ intarsia_slo_ms: { kind: 'double', value: 50 } })).toBeUndefined();
    expect(strict.infer({ intarsia_slo_class: { kind: 'string', value: 'batch' } })).toBeUndefined();
    expect(strict.picker.counts).toEqual({ decisions: 3, shed: { interactive: 1, standard: 0, batch: 0 } });
    const wrong = setUpGateway(new Map([['intarsia_slo_ms', 'soon']]));
    expect(wrong.infer({})?.message).toBe("model 'm': parameter intarsia_slo_ms is 'soon'; it must be above 0");
  });

  it('takes the target and the class of the tenant before those of the model, and the request’s own before both', () => {
    const sha256 = (value: string): string => value.padEnd(64, '0');
    const grant = { sha256: sha256('key'), tenant: 'acme', groups: apiGroups, models: ['*'] };
    const callerWith = (slo: { readonly sloMs?: number; readonly sloClass?: SloClass }): Caller =>
      createAccess({ tokens: [{ ...grant, ...slo }], restricted: [], sha256 }).authorize(
        'inference',
        'http',
        () => 'Bearer key',
      );
    const { infer } = setUpGateway(new Map([['intarsia_slo_ms', '50']]));
    const strict = callerWith({ sloMs: 5, sloClass: 'interactive' });
    expect(infer({}, callerWith({}))).toBeUndefined();
    expect(infer({}, strict)?.details).toMatchObject({ reason: 'shed', class: 'interactive', sloMs: 5 });
    expect(infer({ intarsia_slo_ms: { kind: 'double', value: 60 } }, strict)).toBeUndefined();
    expect(infer({ intarsia_slo_class: { kind: 'string', value: 'batch' } }, strict)).toBeUndefined();
    // A class alone aims at the class's target, whatever the model's is.
    expect(infer({}, callerWith({ sloClass: 'interactive' }))).toBeUndefined();

    const configured = (slo: object) =>
      completeConfig({ repositories: ['models'], tokens: [{ tenant: 'acme', sha256: 'ab'.repeat(32), ...slo }] });
    expect(configured({ sloClass: 'batch', sloMs: 250 }).tokens[0]).toMatchObject({ sloClass: 'batch', sloMs: 250 });
    expect(() => configured({ sloMs: 0 })).toThrow(/tokens.acme.sloMs/u);
    expect(() => configured({ sloClass: 'urgent' })).toThrow(/tokens.acme.sloClass.*interactive, standard, batch/u);
  });

  it('counts what was decided, refused and left to the rule', () => {
    const metrics = new RecordingMetrics();
    const { picker, infer } = setUpGateway();
    exportDispatchMetrics(metrics, [picker], { fallbacks: { range: 2 } });
    infer({
      intarsia_slo_class: { kind: 'string', value: 'interactive' },
      intarsia_slo_ms: { kind: 'double', value: 5 },
    });
    metrics.collect();
    expect(metrics.value('intarsia_dispatch_decisions_total')).toBe(1);
    expect(metrics.value('intarsia_shed_total', 'interactive')).toBe(1);
    expect(metrics.value('intarsia_dispatch_fallbacks_total', 'range')).toBe(2);
  });
});
