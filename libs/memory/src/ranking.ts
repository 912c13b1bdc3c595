/** What found a record: nearness of vectors, full text, the threads of the best hits, or a person whom the query names. */
export type Retriever = 'vector' | 'text' | 'thread' | 'person';

/** A retriever's answer, best first, and how much it counts. */
export interface RankedList {
  readonly retriever: Retriever;
  readonly weight: number;
  readonly ids: readonly string[];
}

/** A record after fusion. */
export interface Fused {
  readonly id: string;
  /** 1 for what every retriever puts first; falls with rank. Compares within one answer only. */
  readonly score: number;
  /** Which retrievers found it, and at which place (1 is the first). */
  readonly matched: readonly { readonly retriever: Retriever; readonly rank: number }[];
}

/** Damps the lead of first places (Cormack, Clarke and Büttcher, SIGIR 2009). */
const RRF_K = 60;

/**
 * Reciprocal rank fusion: ranks are comparable between retrievers where scores are not. Ties go by id, so that the same
 * query answers the same.
 */
export function fuse(lists: readonly RankedList[]): Fused[] {
  // An id counts once per list: should two writers ever have met, LanceDB holds it twice.
  const filled = lists.filter((list) => list.ids.length > 0).map((list) => ({ ...list, ids: [...new Set(list.ids)] }));
  const best = filled.reduce((sum, list) => sum + list.weight / (RRF_K + 1), 0);
  const found = new Map<string, { score: number; matched: { retriever: Retriever; rank: number }[] }>();
  for (const { retriever, weight, ids } of filled) {
    for (const [index, id] of ids.entries()) {
      const one = found.get(id) ?? { score: 0, matched: [] };
      one.score += weight / (RRF_K + index + 1) / best;
      one.matched.push({ retriever, rank: index + 1 });
      found.set(id, one);
    }
  }
  return [...found]
    .map(([id, one]) => ({ id, ...one }))
    .toSorted((left, right) => right.score - left.score || (left.id < right.id ? -1 : 1));
}

/**
 * Puts at most `perGroup` of each group first, then the rest in their order: ten answers from one thread help less than
 * the best of ten threads, but when there is nothing else the rest is welcome.
 */
export function spread<Item>(items: readonly Item[], groupOf: (item: Item) => string, perGroup: number): Item[] {
  const counts = new Map<string, number>();
  const first: Item[] = [];
  const rest: Item[] = [];
  for (const item of items) {
    const group = groupOf(item);
    const count = (counts.get(group) ?? 0) + 1;
    counts.set(group, count);
    (count <= perGroup ? first : rest).push(item);
  }
  return [...first, ...rest];
}
