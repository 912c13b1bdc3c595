import { fold, isStopWord, stem, wordsOf } from './words.js';

it('reads words folded, in order', () => {
  expect(wordsOf('RODBC-1.3: "Größe", naïve Ünïcode_x!')).toEqual([
    'rodbc',
    '1',
    '3',
    'große',
    'naive',
    'unicode',
    'x',
  ]);
  expect(fold('ÉCOLE')).toBe('ecole');
});

it.each([
  ['connecting connection connections connected', 'connect'],
  ['query queries', 'query'],
  ['databases database', 'databas'],
  ['running', 'run'],
  ['classes', 'class'],
])('gives %s one root', (words, root) => {
  expect(new Set(words.split(' ').map(stem))).toEqual(new Set([root]));
});

it('leaves short words, versions and names of things alone', () => {
  expect(['bus', 'x86s', 'dbi', 'sing'].map(stem)).toEqual(['bus', 'x86s', 'dbi', 'sing']);
});

it('knows what says little', () => {
  expect(['the', 'wrote', 'database'].map(isStopWord)).toEqual([true, true, false]);
});
