/**
 * A receipt as parameters of an answer: what ran where, how long it took and what it cost, under names that begin with
 * `intarsia_`. Only booleans, int64 and texts, because some dialects know no other kinds.
 */
import type { InferParameter } from '#core/inference-message.js';
import type { Receipt } from '#core/receipt.js';

const texts = new Map<string, InferParameter>();
/** Devices, tenants and the like repeat: their parameters are made once. Forgotten when this many are known. */
const textsMax = 4096;
const emulated: InferParameter = { kind: 'bool', value: true };

/** Adds the receipt's parameters. `host`: the one that computed; empty outside of a grid. */
export function addReceipt(into: Map<string, InferParameter>, receipt: Receipt, host: string): void {
  if (host !== '') into.set('intarsia_host', repeatedText(host));
  into.set('intarsia_device', repeatedText(receipt.device));
  into.set('intarsia_queue_us', whole(receipt.queueUs));
  into.set('intarsia_compute_us', whole(receipt.computeInputUs + receipt.computeInferUs + receipt.computeOutputUs));
  into.set('intarsia_link_us', whole(receipt.linkUs));
  into.set('intarsia_batch_items', whole(receipt.batchItems));
  into.set('intarsia_billed_units', whole(receipt.billedUnits));
  into.set('intarsia_unit', repeatedText(receipt.unit));
  const { tenant, project, user } = receipt.billing;
  into.set('intarsia_tenant', repeatedText(tenant));
  if (project !== '') into.set('intarsia_project', repeatedText(project));
  if (user !== '') into.set('intarsia_user', repeatedText(user));
  if (receipt.energyJoules !== undefined) into.set('intarsia_energy_joules', decimal(receipt.energyJoules));
  if (receipt.energySource !== undefined) into.set('intarsia_energy_source', repeatedText(receipt.energySource));
  if (receipt.costUsd !== undefined) into.set('intarsia_cost_usd', decimal(receipt.costUsd));
  if (receipt.price !== undefined) into.set('intarsia_price_source', repeatedText(receipt.price.source));
  if (receipt.variant !== undefined) into.set('intarsia_variant', repeatedText(receipt.variant));
  if (receipt.emulated) into.set('intarsia_emulated', emulated);
  if (receipt.stages !== undefined) into.set('intarsia_stages', stagesText(receipt.stages));
  if (receipt.shares !== undefined) into.set('intarsia_shares', sharesText(receipt.shares));
}

/** Each device of a batch that was spread, as JSON. */
function sharesText(shares: NonNullable<Receipt['shares']>): InferParameter {
  const shown = shares.map(({ host, device, items, chunks, computeUs, energyJoules, costUsd, ...rest }) => ({
    ...(host === '' ? {} : { host }),
    device,
    items,
    chunks,
    compute_us: Math.round(computeUs),
    ...(energyJoules === undefined ? {} : { energy_joules: energyJoules }),
    ...(costUsd === undefined ? {} : { cost_usd: costUsd }),
    ...(rest.emulated ? { emulated: true } : {}),
  }));
  return { kind: 'string', value: JSON.stringify(shown) };
}

/** Each stage of a split model, as JSON: parameters hold no lists. */
function stagesText(stages: NonNullable<Receipt['stages']>): InferParameter {
  const shown = stages.map(({ host, device, queueUs, computeUs, batchItems, energyJoules, costUsd, ...rest }) => ({
    ...(host === '' ? {} : { host }),
    device,
    queue_us: Math.round(queueUs),
    compute_us: Math.round(computeUs),
    batch_items: batchItems,
    ...(energyJoules === undefined ? {} : { energy_joules: energyJoules }),
    ...(costUsd === undefined ? {} : { cost_usd: costUsd }),
    ...(rest.emulated ? { emulated: true } : {}),
  }));
  return { kind: 'string', value: JSON.stringify(shown) };
}

function repeatedText(value: string): InferParameter {
  const known = texts.get(value);
  if (known !== undefined) return known;
  if (texts.size >= textsMax) texts.clear();
  const parameter: InferParameter = { kind: 'string', value };
  texts.set(value, parameter);
  return parameter;
}

function whole(value: number): InferParameter {
  return { kind: 'int64', value: BigInt(Math.max(0, Math.round(value))) };
}

function decimal(value: number): InferParameter {
  return { kind: 'string', value: value.toPrecision(6) };
}
