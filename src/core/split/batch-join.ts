/** Two requests as one batch, to find out whether a model keeps them apart. */
import { datatypeBytes } from '../datatype.js';
import type { Tensor } from '../tensor.js';

/**
 * The tensors of two requests one behind the other along the first dimension; undefined where that cannot be: another
 * type, another size in a later dimension, no dimension at all, texts, or tensors of one request that differ in their first
 * dimension.
 */
export function joinBatches(first: readonly Tensor[], second: readonly Tensor[]): readonly Tensor[] | undefined {
  const others = new Map(second.map((tensor) => [tensor.name, tensor]));
  const sizes = new Set<string>();
  const joined: Tensor[] = [];
  for (const one of first) {
    const other = others.get(one.name);
    const [size, ...rest] = one.shape;
    const [otherSize, ...otherRest] = other?.shape ?? [];
    if (other === undefined || size === undefined || otherSize === undefined) return undefined;
    if (other.datatype !== one.datatype || datatypeBytes(one.datatype) === 0) return undefined;
    if (rest.length !== otherRest.length || rest.some((dimension, axis) => dimension !== otherRest[axis]))
      return undefined;
    sizes.add(`${size} ${otherSize}`);
    const data = new Uint8Array(one.data.byteLength + other.data.byteLength);
    data.set(one.data);
    data.set(other.data, one.data.byteLength);
    joined.push({ name: one.name, datatype: one.datatype, shape: [size + otherSize, ...rest], data });
  }
  return sizes.size === 1 ? joined : undefined;
}
