import { fuse, spread } from './ranking.js';

it('scores 1 what every retriever puts first, and less what fewer or later find', () => {
  const fused = fuse([
    { retriever: 'text', weight: 1, ids: ['a', 'b', 'c'] },
    { retriever: 'vector', weight: 0.5, ids: ['a', 'c'] },
    { retriever: 'thread', weight: 9, ids: [] },
  ]);
  expect(fused.map((one) => one.id)).toEqual(['a', 'c', 'b']);
  expect(fused[0]).toEqual({
    id: 'a',
    score: 1,
    matched: [
      { retriever: 'text', rank: 1 },
      { retriever: 'vector', rank: 1 },
    ],
  });
  expect(fused[1]!.score).toBeCloseTo((1 / 63 + 0.5 / 62) / (1.5 / 61), 10);
  expect(fused[2]!.matched).toEqual([{ retriever: 'text', rank: 2 }]);
});

it('counts an id once per list', () => {
  const [one] = fuse([{ retriever: 'text', weight: 1, ids: ['a', 'a'] }]);
  expect(one).toEqual({ id: 'a', score: 1, matched: [{ retriever: 'text', rank: 1 }] });
});

it('breaks ties by id', () => {
  const lists = [
    { retriever: 'text' as const, weight: 1, ids: ['b', 'a'] },
    { retriever: 'vector' as const, weight: 1, ids: ['a', 'b'] },
  ];
  expect(fuse(lists).map((one) => one.id)).toEqual(['a', 'b']);
});

it('shows each group before any group again, and loses nothing', () => {
  const items = ['x1', 'x2', 'x3', 'y1', 'z1', 'y2'];
  expect(spread(items, (item) => item[0]!, 1)).toEqual(['x1', 'y1', 'z1', 'x2', 'x3', 'y2']);
  expect(spread(items, (item) => item[0]!, 2)).toEqual(['x1', 'x2', 'y1', 'z1', 'y2', 'x3']);
});
