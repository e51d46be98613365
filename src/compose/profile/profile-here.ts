/** Profiling on this machine: its devices, its executors, its database. */
import { emulateExecutor } from '#adapters/emulated/emulated-executor.js';
import { NodeClock } from '#adapters/node/clock.js';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import { defaultProfileFolder } from '#adapters/profile-files/default-folder.js';
import { ProfileFolder } from '#adapters/profile-files/profile-folder.js';
import type { ProfileReport, ProfileRequest } from '#cli/profile-report.js';
import { deviceEnvironment } from '#core/device-discovery.js';
import { invariant } from '#core/errors.js';
import type { ProfileBook } from '#core/hardware-profile.js';
import type { Clock } from '#ports/clock.js';
import type { Executor } from '#ports/executor.js';
import type { ProfileStore } from '#ports/profile-store.js';
import { discoverHere } from '../discover-here.js';
import { emulationOf } from '../executors.js';
import type { PlanDevice } from '../split/plan-devices.js';
import { profileModel } from './profile-model.js';

/** @throws what `profileModel` throws. */
export async function profileHere(
  request: ProfileRequest,
  progress: (share: number, words: string) => void,
): Promise<ProfileReport> {
  const clock = new NodeClock();
  const { report, profiles } = await discoverHere(request.profilesPath);
  const storePath = request.store === '' ? defaultProfileFolder() : request.store;
  const store = await ProfileFolder.open({ path: storePath, clock });
  try {
    return await profileModel(request, {
      ...{ discovery: report, profiles, store, storePath, clock, progress },
      startExecutor: (device) => startExecutor(device, { profiles, clock }),
    });
  } finally {
    await store.close();
  }
}

/** This user's database, for as long as the work takes. @throws UNAVAILABLE when its folder cannot be made or read. */
export async function withStore<Result>(
  work: (store: ProfileStore) => Promise<Result>,
  path = defaultProfileFolder(),
): Promise<Result> {
  const store = await ProfileFolder.open({ path, clock: new NodeClock() });
  try {
    return await work(store);
  } finally {
    await store.close();
  }
}

async function startExecutor(
  { id, provider, emulated, memoryBytes, descriptor }: PlanDevice,
  { profiles, clock }: { readonly profiles: ProfileBook; readonly clock: Clock },
): Promise<Executor> {
  if (emulated) {
    const profile = profiles.get(id.split(':')[1] ?? '');
    invariant(profile !== undefined, `the profile of ${id} was checked before`);
    return emulateExecutor({ profile: emulationOf(profile, { id, memoryBytes }), clock, timeScale: 1 });
  }
  return startProcessExecutor({
    ...{ provider, lanes: 1 },
    ...(descriptor === undefined ? {} : { env: deviceEnvironment(descriptor) }),
  });
}
