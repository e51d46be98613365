/**
 * How much work arrives and how unevenly: means over about a second and half a minute, and the index of dispersion of the
 * last ten seconds. Constant time and memory an arrival, whatever the rate.
 */

const shortMs = 1_000;
const longMs = 30_000;
const binMs = 100;
const bins = 100;

export class ArrivalMeter {
  /** Work a millisecond as of `#atMs`. */
  #short = 0;
  #long = 0;
  #atMs = -Infinity;
  readonly #counts = new Float64Array(bins);
  #bin = 0;
  #firstBin = -1;
  #sum = 0;
  #squares = 0;

  /** `work` arrives: ms of the whole fleet's time. */
  arrive(work: number, nowMs: number): void {
    const shortLeft = this.#atMs === -Infinity ? 0 : Math.exp((this.#atMs - nowMs) / shortMs);
    const longLeft = this.#atMs === -Infinity ? 0 : Math.exp((this.#atMs - nowMs) / longMs);
    this.#short = this.#short * shortLeft + work / shortMs;
    this.#long = this.#long * longLeft + work / longMs;
    this.#atMs = nowMs;
    this.#turn(nowMs);
    const at = this.#bin % bins;
    const before = this.#counts[at] as number;
    this.#counts[at] = before + 1;
    this.#sum += 1;
    this.#squares += 2 * before + 1;
  }

  load1s(nowMs: number): number {
    return this.#atMs === -Infinity ? 0 : this.#short * Math.exp((this.#atMs - nowMs) / shortMs);
  }

  load30s(nowMs: number): number {
    return this.#atMs === -Infinity ? 0 : this.#long * Math.exp((this.#atMs - nowMs) / longMs);
  }

  /** Variance over mean of the arrivals in 100 ms; 1 before there are any. */
  burstiness(nowMs: number): number {
    if (this.#firstBin < 0) return 1;
    this.#turn(nowMs);
    const seen = Math.min(bins, this.#bin - this.#firstBin + 1);
    const mean = this.#sum / seen;
    return mean === 0 ? 1 : Math.max(0, this.#squares / seen - mean * mean) / mean;
  }

  #turn(nowMs: number): void {
    const bin = Math.floor(nowMs / binMs);
    if (this.#firstBin < 0) {
      this.#firstBin = bin;
      this.#bin = bin;
      return;
    }
    if (bin <= this.#bin) return;
    const steps = Math.min(bins, bin - this.#bin);
    for (let step = 1; step <= steps; step += 1) {
      const at = (this.#bin + step) % bins;
      const gone = this.#counts[at] as number;
      this.#sum -= gone;
      this.#squares -= gone * gone;
      this.#counts[at] = 0;
    }
    this.#bin = bin;
  }
}
