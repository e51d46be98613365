/**
 * What becomes of single shards of a deployment's split copies: a shard that is lost, or has to leave its place, is replaced
 * alone and the other shards stay as they are loaded. The copy gets a new number for it, so that no shard of a copy ever has
 * two owners. A shard that still serves is given up only once another replica of it, a standby, is ready.
 */
import { avoidKey, startingCopy, type BrokenCopy, type Copy } from './copies.js';
import { placementRefusals, refusalsText } from './placement-refusals.js';
import { isDeviceAllowed, isHostAllowed } from './placement-rules.js';
import type { PlaceDevice, PlaceHost, PlacementRequest, PlacementTable } from './placement.js';
import type { MemoryDraft } from './reconcile-memory.js';
import type { Deployment, Edition, PlacementConstraints } from './records.js';
import { isSameEdition, pieceText } from './rollout.js';

export interface MendingInput {
  readonly deployment: Deployment;
  readonly table: PlacementTable;
  readonly draft: MemoryDraft;
  readonly copies: readonly Copy[];
  /** The next number that no copy ever had. */
  readonly nextReplica: () => number;
}

export class Mending {
  readonly #input: MendingInput;
  #standbys: readonly Copy[];
  /** Hosts that have a shard of a copy, by shard's name. */
  readonly #holders = new Map<string, PlaceHost[]>();
  /** Replicas of a shard that are wanted so that a copy can do without the one it has. */
  readonly #wanted = new Map<string, number>();
  readonly #refusals: string[] = [];

  constructor(input: MendingInput) {
    this.#input = input;
    this.#standbys = input.copies.filter(({ standby }) => standby !== undefined);
    for (const copy of input.copies) {
      for (const [index, { host }] of copy.places.entries()) this.#hold(copy.edition, copy.standby ?? index, host);
    }
  }

  /** Whether a copy waits for a replacement of a shard. */
  get isMoving(): boolean {
    return this.#wanted.size > 0;
  }

  get refusals(): readonly string[] {
    return this.#refusals;
  }

  /** The copy with every shard that should leave its place replaced by a standby that is ready, as far as there are any. */
  mend(copy: Copy): Copy {
    const { edition } = copy;
    const places = [...copy.places];
    let isMended = false;
    for (const [shard, place] of copy.places.entries()) {
      if (!copy.badShards.includes(shard) && this.#isAllowed(edition, shard, place)) continue;
      const standby = this.#take(edition, shard, ({ state }) => state === 'ready');
      if (standby === undefined) {
        const name = pieceText({ ...edition, shard });
        this.#wanted.set(name, (this.#wanted.get(name) ?? 0) + 1);
      } else {
        places[shard] = standby;
        isMended = true;
      }
    }
    if (!isMended) return copy;
    const state = copy.state === 'ready' && !copy.isSuspected ? 'ready' : 'starting';
    return { ...this.#newCopy(edition, places), state };
  }

  /** A copy of what is left of one; undefined, and nothing changed, when a lost shard finds no place. */
  repair({ edition, places }: BrokenCopy): Copy | undefined {
    const { table } = this.#input;
    const undo: (() => void)[] = [];
    const now: PlaceDevice[] = [];
    for (const [shard, left] of places.entries()) {
      const name = pieceText({ ...edition, shard });
      const bytes = edition.split?.shards[shard]?.memoryBytes ?? 0;
      // Another copy may have been made with what was left of this one.
      const place = left?.editions.get(name)?.assigned === true ? undefined : left;
      let found = place;
      if (place === undefined) {
        const before = this.#standbys;
        found = this.#take(edition, shard, ({ isToMove }) => !isToMove);
        if (found === undefined) {
          const search = table.search(this.#request(edition, shard));
          found = search.place()?.[0];
          const placed = found;
          if (placed !== undefined) undo.push(() => table.restore(placed, name, undefined));
        } else undo.push(() => void (this.#standbys = before));
      } else {
        const before = place.editions.get(name);
        undo.push(() => table.restore(place, name, before));
        table.take(place, name, { bytes, assigned: true });
      }
      if (found === undefined) {
        for (const step of undo.reverse()) step();
        return undefined;
      }
      now.push(found);
    }
    for (const [shard, { host }] of now.entries()) this.#hold(edition, shard, host);
    return this.#newCopy(edition, now);
  }

  /** The standbys to have now: those of other editions leave. */
  settle(edition: Edition): readonly Copy[] {
    const kept: Copy[] = [];
    for (const [shard, { standby = 0 }] of (edition.split?.shards ?? []).entries()) {
      const name = pieceText({ ...edition, shard });
      const wanted = standby + (this.#wanted.get(name) ?? 0);
      const own = this.#standbys.filter((one) => one.standby === shard && isSameEdition(one.edition, edition));
      const isSound = (one: Copy): boolean =>
        one.badShards.length === 0 && one.places.every((place) => this.#isAllowed(edition, shard, place));
      const sound = own.filter(isSound).sort((a, b) => rank(a) - rank(b) || a.replica - b.replica);
      const staying = sound.slice(0, wanted);
      // What should be elsewhere serves on until enough others do.
      const isEnough = staying.filter(({ state }) => state === 'ready').length >= wanted;
      kept.push(...staying, ...(isEnough ? [] : own.filter((one) => !isSound(one))));
      this.#add(edition, shard, wanted - staying.length, kept);
    }
    return kept;
  }

  #add(edition: Edition, shard: number, count: number, kept: Copy[]): void {
    if (count <= 0) return;
    const request = this.#request(edition, shard);
    const search = this.#input.table.search(request);
    for (let placed = 0; placed < count; placed += 1) {
      const gang = search.place();
      if (gang === undefined) {
        const what = `${count - placed} ${count - placed === 1 ? 'standby' : 'standbys'} of stage ${shard + 1}`;
        const refusals = placementRefusals(this.#input.table.hosts, request);
        this.#refusals.push(
          `${what} of ${request.edition.split('#')[0] ?? ''} cannot be placed: ${refusalsText(refusals)}`,
        );
        return;
      }
      kept.push({ ...this.#newCopy(edition, gang), standby: shard });
    }
  }

  /** Takes a standby of a shard out of the list; its place. */
  #take(edition: Edition, shard: number, isFit: (standby: Copy) => boolean): PlaceDevice | undefined {
    const found = this.#standbys.find(
      (one) =>
        one.standby === shard &&
        isSameEdition(one.edition, edition) &&
        one.badShards.length === 0 &&
        !one.isSuspected &&
        isFit(one) &&
        one.places.every((place) => this.#isAllowed(edition, shard, place)),
    );
    if (found === undefined) return undefined;
    this.#standbys = this.#standbys.filter((one) => one !== found);
    return found.places[0];
  }

  #isAllowed(edition: Edition, shard: number, { host, device }: PlaceDevice): boolean {
    const all: readonly PlacementConstraints[] = [
      this.#input.deployment.constraints,
      edition.split?.shards[shard]?.constraints ?? {},
    ];
    return all.every((one) => isHostAllowed(host.view, one) && isDeviceAllowed(device, one));
  }

  /** A place for one shard, on another host than those that have it, where there is room. */
  #request(edition: Edition, shard: number): PlacementRequest {
    const { deployment, draft } = this.#input;
    const name = pieceText({ ...edition, shard });
    const spec = edition.split?.shards[shard];
    return {
      edition: name,
      shardBytes: [spec?.memoryBytes ?? 0],
      constraints: deployment.constraints,
      shardConstraints: [spec?.constraints],
      tier: undefined,
      spread: deployment.spread,
      placed: this.#holders.get(name) ?? [],
      isAvoided: (device) => draft.hasAvoided && draft.isAvoided(avoidKey({ ...edition, shard }, device)),
    };
  }

  #hold(edition: Edition, shard: number, host: PlaceHost): void {
    const name = pieceText({ ...edition, shard });
    const holders = this.#holders.get(name);
    if (holders === undefined) this.#holders.set(name, [host]);
    else holders.push(host);
  }

  #newCopy(edition: Edition, places: readonly PlaceDevice[]): Copy {
    return startingCopy(this.#input.deployment.name, this.#input.nextReplica(), edition, places);
  }
}

/** Ready ones first. */
function rank({ state }: Copy): number {
  return state === 'ready' ? 0 : 1;
}
