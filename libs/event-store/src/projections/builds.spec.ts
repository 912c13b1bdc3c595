import { readFileSync } from 'node:fs';
import { BUILD_MOVES, BUILD_STATES, OVER } from './builds.js';
import { checkProjection, type Projection } from './projection.js';

describe('the states of a build', () => {
  it('are drawn in docs/states.md exactly as the table has them', () => {
    const drawing = readFileSync('docs/states.md', 'utf8')
      .split(/^## /m)
      .find((section) => section.startsWith('A build of a projection'))!;
    const drawn = [...drawing.matchAll(/^\s*(\w+) --> (\w+): (\w+)$/gm)].map(
      ([, from, to, move]) => `${from} ${move} ${to}`,
    );
    const declared = Object.entries(BUILD_MOVES).flatMap(([move, { from, to }]) =>
      from.map((state) => `${state} ${move} ${to}`),
    );
    expect(drawn.sort()).toEqual(declared.sort());
  });

  it('lead on from all but those that are over', () => {
    const left = new Set(Object.values(BUILD_MOVES).flatMap(({ from }) => from));
    expect(BUILD_STATES.filter((state) => !left.has(state))).toEqual(OVER);
  });
});

describe('a projection is refused', () => {
  const sound: Projection = {
    name: 'sums',
    version: 1,
    mode: 'async',
    eventTypes: 'all',
    tables: [],
    apply: async () => undefined,
  };
  const table = (name: string) => ({ name, create: async () => undefined });

  it.each([
    ['a/b', { name: 'a/b' }],
    ['version 0', { version: 0 }],
    ['no shard', { shards: 0 }],
    ['a table too long for the name of a build', { tables: [table('t'.repeat(55))] }],
    ['a table in upper case', { tables: [table('Sums')] }],
    ['two tables of one name', { tables: [table('sums'), table('sums')] }],
  ])('for %s', (_, fault) => {
    expect(() => checkProjection({ ...sound, tables: [table('t'.repeat(54))] })).not.toThrow();
    expect(() => checkProjection({ ...sound, ...fault })).toThrow(TypeError);
  });
});
