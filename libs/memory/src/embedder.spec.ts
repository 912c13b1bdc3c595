import { localHashEmbedder } from './embedder.js';

async function likeness(left: string, right: string): Promise<number> {
  const [one, other] = await localHashEmbedder.embed([left, right]);
  return one!.reduce((sum, value, index) => sum + value * other![index]!, 0);
}

it('answers vectors of the promised length, normalised, the same every time', async () => {
  const texts = ['A short text about databases.', 'x', 'Größe ÅÄÖ 東京 🎉'];
  const vectors = await localHashEmbedder.embed(texts);
  expect(vectors.map((vector) => vector.length)).toEqual([384, 384, 384]);
  for (const vector of vectors) expect(Math.hypot(...vector)).toBeCloseTo(1, 5);
  expect(await localHashEmbedder.embed(texts)).toEqual(vectors);
});

it('keeps the vectors it once made, for they are stored', async () => {
  const [vector] = await localHashEmbedder.embed(['postgres']);
  const places = [...vector!].flatMap((value, place) => (value === 0 ? [] : [`${place}: ${value.toFixed(3)}`]));
  expect(places).toEqual([
    '66: 0.981',
    '113: 0.080',
    '173: -0.080',
    '188: -0.080',
    '194: 0.080',
    '261: -0.080',
    '270: -0.080',
  ]);
});

it('finds texts alike that share words, also inflected or accented', async () => {
  const question = 'connecting to a database from R';
  expect(await likeness(question, 'Connection to the databases')).toBeGreaterThan(0.4);
  expect(await likeness('café', 'CAFE')).toBeCloseTo(1, 5);
  expect(await likeness(question, 'Quarterly sales figures of the Lisbon office')).toBeLessThan(0.15);
});

it('is not led by words that everybody uses', async () => {
  const about = await likeness('the report of the year', 'the report');
  const stops = await likeness('the report of the year', 'the meeting of the board');
  expect(about).toBeGreaterThan(stops + 0.3);
});

it('answers zeros for a text without words, and takes any length', async () => {
  const [none, long] = await localHashEmbedder.embed(['?!', 'word '.repeat(1_000_000)]);
  expect(none!.every((value) => value === 0)).toBe(true);
  expect(Math.hypot(...long!)).toBeCloseTo(1, 5);
});

it('stops when told to', async () => {
  await expect(localHashEmbedder.embed(['a'], AbortSignal.abort(new Error('stop')))).rejects.toThrow('stop');
});
