/**
 * A fleet file, already read as plain data, to a `Fleet`: every field checked, every default filled in, figures that are not
 * given taken from the hardware profile a device names. Each error names the device or model and the field.
 *
 *     name: edge and core
 *     classes: { interactive: { share: 0.4 }, standard: { share: 0.4 }, batch: { share: 0.2, onMiss: shed } }
 *     noise: 0.08
 *     models:
 *       - name: resnet50
 *         share: 0.6
 *         itemsMax: 32
 *         sloMs: { interactive: 300, standard: 1500, batch: 20000 }
 *         work: { flopsPerItem: 8.2e9, weightMB: 102, activationMBPerItem: 25, kernels: 160 }
 *         tables: { class-cloud-cpu: { 1: 97, 16: 1539 } }
 *     devices:
 *       - { name: l4, profile: nvidia-l4, count: 3, tier: regional }
 */
import { intarsiaError } from '#core/errors.js';
import type { HardwareProfile, ProfileBook } from '#core/hardware-profile.js';
import { checkServiceProfile, type ServiceProfile } from '#core/scheduling/service-profile.js';
import { defaultSloRules, sloClasses } from '#core/scheduling/slo-class.js';
import { GiB } from '#core/units.js';
import type { Fleet, FleetDevice, FleetModel, FleetTier, LastingNoise, TokenRule } from './fleet.js';
import { FleetFile } from './fleet-file.js';
import { estimatedTable, type ModelWork } from './service-tables.js';

const devicesMax = 10_000;
const modelsMax = 1000;
const itemsMaxMax = 4096;
const modelLoadMs = 2000;
/** Round trip to a device of the tier where nothing is given, ms: low ends of `linkPriors`. */
const tierNetMs: Readonly<Record<FleetTier, number>> = { edge: 2, regional: 15, core: 45 };
const namePattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

interface ModelRow {
  readonly model: FleetModel;
  readonly work: ModelWork | undefined;
  readonly tables: ReadonlyMap<string, ServiceProfile>;
}

export interface ReadFleetOptions {
  /** Whether a device may be given more models than fit: a residency plan then says which live there. Default false. */
  readonly isPlanned?: boolean;
}

/** @throws CONFIG_INVALID naming the file, the device or model, and the field. */
export function readFleet(
  data: unknown,
  fileName: string,
  profiles: ProfileBook,
  options: ReadFleetOptions = {},
): Fleet {
  const file = new FleetFile(fileName, '', data, ['name', 'classes', 'noise', 'lastingNoise', 'models', 'devices']);
  const name = file.text('name', fileName);
  const noise = file.number('noise', 0, 1, 0.08);
  const { classShares, classOnMiss } = readClasses(file);
  const rows = file.list('models', 1, modelsMax).map((row, index) => readModel(fileName, row, index, noise));
  unique(
    rows.map(({ model }) => model.name),
    fileName,
    'model',
  );
  const total = rows.reduce((sum, { model }) => sum + model.share, 0);
  if (!(total > 0)) throw file.wrong('models', 'shares that add up to more than 0', total);
  const spread = spreadOf(noise);
  const devices: FleetDevice[] = [];
  for (const [index, row] of file.list('devices', 1, devicesMax).entries()) {
    for (const device of readDevices(
      { fileName, rows, profiles, noise, spread, isPlanned: options.isPlanned ?? false },
      row,
      index,
    ))
      devices.push(device);
    if (devices.length > devicesMax) throw file.wrong('devices', `at most ${devicesMax} devices`, devices.length);
  }
  unique(
    devices.map(({ id }) => id),
    fileName,
    'device',
  );
  const models = rows.map(({ model }) => ({ ...model, share: model.share / total }));
  for (const [index, model] of models.entries()) {
    if (!devices.some((device) => device.service[index] !== undefined)) {
      throw intarsiaError('CONFIG_INVALID', `${fileName}: no device of the fleet can serve model ${model.name}`, {
        file: fileName,
        model: model.name,
      });
    }
  }
  for (const { id, slowedBy } of devices) {
    for (const other of slowedBy.keys()) {
      if (other === id || !devices.some((device) => device.id === other)) {
        throw file.wrong(`devices, ${id}, slowedBy`, 'ids of other devices of this file', other);
      }
    }
  }
  return { name, devices, models, classShares, classOnMiss, noise, lastingNoise: readLasting(file) };
}

function readLasting(file: FleetFile): LastingNoise {
  const lasting = file.record('lastingNoise', ['share', 'ms']);
  if (lasting === undefined) return { share: 0, ms: 1 };
  return { share: lasting.number('share', 0, 1), ms: lasting.number('ms', 1e-3, 1e9) };
}

function readClasses(file: FleetFile): Pick<Fleet, 'classShares' | 'classOnMiss'> {
  const defaults = { interactive: 0.4, standard: 0.4, batch: 0.2 };
  const given = file.record('classes', [...sloClasses]);
  const shares = sloClasses.map((name) =>
    given === undefined ? defaults[name] : (given.record(name, ['share', 'onMiss'])?.number('share', 0, 1e9, 0) ?? 0),
  );
  const total = shares.reduce((sum, share) => sum + share, 0);
  if (!(total > 0)) throw file.wrong('classes', 'shares that add up to more than 0', total);
  return {
    classShares: shares.map((share) => share / total),
    classOnMiss: sloClasses.map(
      (name) =>
        given?.record(name, ['share', 'onMiss'])?.oneOf('onMiss', ['shed', 'serve-late'], undefined) ??
        defaultSloRules[name].onMiss,
    ),
  };
}

function readModel(fileName: string, row: unknown, index: number, noise: number): ModelRow {
  const fields = [
    ...['name', 'share', 'itemsMax', 'memoryMiB', 'loadMs', 'bytesPerItem', 'sloMs', 'tokens', 'work', 'tables'],
  ];
  const file = new FleetFile(fileName, `model ${index + 1}`, row, fields);
  const name = file.text('name');
  if (!namePattern.test(name)) throw file.wrong('name', 'letters, digits, . _ -, at most 64', name);
  const at = new FleetFile(fileName, `model ${name}`, row, fields);
  const itemsMax = at.whole('itemsMax', 1, itemsMaxMax, 32);
  const slo = at.record('sloMs', [...sloClasses]);
  const work = readWork(at);
  const tables = new Map<string, ServiceProfile>();
  const given = at.record('tables');
  for (const key of given?.fields() ?? []) tables.set(key, readTable(given as FleetFile, key, noise));
  if (work === undefined && tables.size === 0) throw at.wrong('work', 'work or tables: how long it takes', undefined);
  const model: FleetModel = {
    name,
    share: at.number('share', 0, 1e9, 1),
    itemsMax,
    memoryBytes: Math.round(at.number('memoryMiB', 0, 1e9, (work?.weightBytes ?? 0) / 2 ** 20 || 100) * 2 ** 20),
    loadMs: at.number('loadMs', 0, 1e7, modelLoadMs),
    bytesPerItem: at.number('bytesPerItem', 0, 1e12, 0),
    sloMs: sloClasses.map(
      (each) => slo?.number(each, 1e-3, 1e9, defaultSloRules[each].sloMs) ?? defaultSloRules[each].sloMs,
    ),
    tokens: readTokens(at),
  };
  return { model, work, tables };
}

function readWork(at: FleetFile): ModelWork | undefined {
  const work = at.record('work', ['flopsPerItem', 'weightMB', 'activationMBPerItem', 'kernels']);
  if (work === undefined) return undefined;
  return {
    flopsPerItem: work.number('flopsPerItem', 0, 1e18),
    weightBytes: work.number('weightMB', 0, 1e9) * 1e6,
    activationBytesPerItem: work.number('activationMBPerItem', 0, 1e9, 0) * 1e6,
    kernels: work.number('kernels', 0, 1e6, 0),
  };
}

function readTokens(at: FleetFile): TokenRule | undefined {
  const tokens = at.record('tokens', ['perItem', 'generatedWeight']);
  if (tokens === undefined) return undefined;
  return {
    tokensPerItem: tokens.whole('perItem', 1, 1e9),
    generatedWeight: tokens.number('generatedWeight', 0, 1e6, 1),
  };
}

/** A map from items to milliseconds. */
function readTable(tables: FleetFile, key: string, noise: number): ServiceProfile {
  const table = tables.record(key) as FleetFile;
  const sizes = table
    .fields()
    .map(Number)
    .sort((a, b) => a - b);
  const profile: ServiceProfile = {
    batches: sizes,
    ms: sizes.map((items) => table.number(String(items), 1e-6, 1e9)),
    spread: spreadOf(noise),
  };
  try {
    return checkServiceProfile(profile, `${tables.place}, tables.${key}`);
  } catch (error) {
    throw table.wrong('', error instanceof Error ? error.message : String(error), sizes);
  }
}

/** (p95 - p50) / p50 of a lognormal factor. */
export function spreadOf(sigma: number): number {
  return Math.exp(1.645 * sigma) - 1;
}

/** What device rows are read with. */
interface Known {
  readonly fileName: string;
  readonly rows: readonly ModelRow[];
  readonly profiles: ProfileBook;
  readonly noise: number;
  readonly spread: number;
  readonly isPlanned: boolean;
}

function readDevices(known: Known, row: unknown, index: number): FleetDevice[] {
  const { fileName, rows, profiles, noise, spread, isPlanned } = known;
  const fields = [
    ...['name', 'profile', 'count', 'tier', 'usdPerHour', 'watts', 'memoryGiB', 'netMs', 'linkMBs', 'permits', 'spot'],
    ...['spotHazardPerHour', 'failuresPerHour', 'repairMs', 'drift', 'driftPeriodMs', 'models'],
    ...['noise', 'handOverMs', 'slowedBy'],
  ];
  const name = new FleetFile(fileName, `device ${index + 1}`, row, fields).text('name');
  const at = new FleetFile(fileName, `device ${name}`, row, fields);
  if (!namePattern.test(name)) throw at.wrong('name', 'letters, digits, . _ -, at most 64', name);
  const key = at.text('profile', '');
  const profile = key === '' ? undefined : profiles.get(key);
  if (key !== '' && profile === undefined) throw at.wrong('profile', 'the key of a hardware profile', key);
  const count = at.whole('count', 1, devicesMax, 1);
  const tier = at.oneOf('tier', ['edge', 'regional', 'core'], 'regional');
  const spot = at.flag('spot', false);
  const figures: HardwareProfile['figures'] = profile?.figures ?? {};
  const price = (spot ? figures.usdPerHourSpot : undefined) ?? figures.usdPerHour;
  const wanted = at.names('models') ?? rows.map(({ model }) => model.name);
  for (const each of wanted) {
    if (!rows.some(({ model }) => model.name === each)) throw at.wrong('models', 'names of models of this file', each);
  }
  const ownNoise = at.number('noise', 0, 1, noise);
  const slowers = at.record('slowedBy');
  const memoryBytes = Math.round(at.number('memoryGiB', 0.001, 1e6, figures.memoryGiB?.value ?? 16) * GiB);
  const service = rows.map((each) =>
    wanted.includes(each.model.name)
      ? { ...tableOf(at, { name, profile, spread }, each), spread: spreadOf(ownNoise) }
      : undefined,
  );
  const needed = rows.reduce((sum, { model }, at_) => sum + (service[at_] === undefined ? 0 : model.memoryBytes), 0);
  if (needed > memoryBytes && !isPlanned) {
    const room = `${(needed / GiB).toFixed(2)} GiB, or a residency plan`;
    throw at.wrong('memoryGiB', `room for its models, ${room}`, memoryBytes / GiB);
  }
  const device = {
    type: name,
    tier,
    usdPerHour: at.number('usdPerHour', 0, 1e6, price?.value),
    watts: at.number('watts', 0, 1e7, figures.tdpWatts?.value),
    memoryBytes,
    netMs: at.number('netMs', 0, 1e6, tierNetMs[tier]),
    linkMBs: at.number('linkMBs', 1e-3, 1e9, 1250),
    permits: at.whole('permits', 1, 64, 1),
    spotHazardPerHour: at.number('spotHazardPerHour', 0, 1e6, spot ? 0.3 : 0),
    failuresPerHour: at.number('failuresPerHour', 0, 1e6, 0),
    repairMs: at.number('repairMs', 0, 1e9, 30_000),
    drift: at.number('drift', 0, 0.9, 0),
    driftPeriodMs: at.number('driftPeriodMs', 1, 1e12, 600_000),
    noise: ownNoise,
    handOverMs: at.number('handOverMs', 0, 1e6, 0),
    slowedBy: new Map((slowers?.fields() ?? []).map((other) => [other, slowers?.number(other, 1, 100) ?? 1])),
    service,
  };
  return Array.from({ length: count }, (_, number) => ({ ...device, id: count === 1 ? name : `${name}-${number}` }));
}

function tableOf(
  at: FleetFile,
  device: { readonly name: string; readonly profile: HardwareProfile | undefined; readonly spread: number },
  { model, work, tables }: ModelRow,
): ServiceProfile {
  const { name, profile, spread } = device;
  const table = tables.get(name) ?? (profile === undefined ? undefined : tables.get(profile.key));
  if (table !== undefined) return table;
  if (profile === undefined || work === undefined) {
    throw at.wrong('profile', `a profile and work, or a table of model ${model.name} for device ${name}`, profile?.key);
  }
  return estimatedTable(profile, work, model.itemsMax, spread);
}

function unique(names: readonly string[], fileName: string, what: string): void {
  const seen = new Set<string>();
  for (const name of names) {
    if (seen.has(name)) {
      throw intarsiaError('CONFIG_INVALID', `${fileName}: two ${what}s are called ${name}`, {
        file: fileName,
        [what]: name,
      });
    }
    seen.add(name);
  }
}
