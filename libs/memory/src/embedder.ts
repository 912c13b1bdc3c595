import { isStopWord, stem, wordsOf } from './words.js';

/** Turns texts into vectors of one length whose cosine says how alike the texts are. */
export interface Embedder {
  /** Stored with every index: vectors of two embedders cannot be compared. */
  readonly name: string;
  /** Length of each vector. */
  readonly dimensions: number;
  /** One vector per text, in order, each of length 1 (or all zero for a text without words). */
  embed(texts: readonly string[], signal?: AbortSignal): Promise<Float32Array[]>;
}

const DIMENSIONS = 384;
/** Words of one text that are read: a mail's topic is in its beginning, and the cost of a text stays bounded. */
const MAX_WORDS = 2_000;
/** A run of letters longer than this is encoded data, not a word. */
const MAX_WORD_CHARS = 40;
/** Weights of the kinds of features; tried on a real mailing list, see the README. */
const WORD_WEIGHT = 1;
const PAIR_WEIGHT = 0.5;
const GRAM_WEIGHT = 0.2;
const STOP_WORD_WEIGHT = 0.1;
/** Texts embedded before the event loop gets its turn: about 10 ms, so heartbeats and health checks are never late. */
const TEXTS_PER_TURN = 16;

/**
 * The embedder that needs no key, network or model: signed feature hashing of stemmed words, neighbouring pairs and
 * character trigrams, with sublinear counts. It finds shared words and spellings, not meanings; its name says so.
 */
export const localHashEmbedder: Embedder = {
  name: 'local-hash-384',
  dimensions: DIMENSIONS,
  async embed(texts, signal) {
    const vectors: Float32Array[] = [];
    for (const [index, text] of texts.entries()) {
      if (index % TEXTS_PER_TURN === TEXTS_PER_TURN - 1) await new Promise((resolve) => setImmediate(resolve));
      signal?.throwIfAborted();
      vectors.push(hashText(text));
    }
    return vectors;
  },
};

function hashText(text: string): Float32Array {
  const counts = new Map<string, number>();
  const pairs = new Map<string, number>();
  let previous: string | undefined;
  for (const word of wordsOf(text).slice(0, MAX_WORDS)) {
    if (word.length > MAX_WORD_CHARS) continue;
    const root = isStopWord(word) ? word : stem(word);
    counts.set(root, (counts.get(root) ?? 0) + 1);
    if (isStopWord(word)) continue;
    if (previous !== undefined) pairs.set(`${previous} ${root}`, (pairs.get(`${previous} ${root}`) ?? 0) + 1);
    previous = root;
  }
  const vector = new Float32Array(DIMENSIONS);
  for (const [word, count] of counts) {
    const sublinear = 1 + Math.log(count);
    if (isStopWord(word)) {
      add(vector, word, STOP_WORD_WEIGHT * sublinear);
      continue;
    }
    add(vector, word, WORD_WEIGHT * sublinear);
    // Divided by the root of their number, so that long words do not outweigh short ones.
    const padded = `<${word}>`;
    const grams = padded.length - 2;
    if (grams < 2) continue;
    const weight = (GRAM_WEIGHT * sublinear) / Math.sqrt(grams);
    for (let start = 0; start < grams; start += 1) add(vector, `#${padded.slice(start, start + 3)}`, weight);
  }
  for (const [pair, count] of pairs) add(vector, pair, PAIR_WEIGHT * (1 + Math.log(count)));
  return normalise(vector);
}

/** Adds a feature at the place its hash names; the sign bit makes collisions cancel instead of pile up. */
function add(vector: Float32Array, feature: string, weight: number): void {
  let hash = 0x811c9dc5; // FNV-1a over UTF-16 units, then the finaliser of MurmurHash3, whose low bits are well mixed
  for (let index = 0; index < feature.length; index += 1) {
    hash = Math.imul(hash ^ feature.charCodeAt(index), 0x01000193);
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  hash = (hash ^ (hash >>> 16)) >>> 0;
  const place = (hash >>> 1) % DIMENSIONS;
  vector[place] = vector[place]! + (hash & 1 ? weight : -weight);
}

function normalise(vector: Float32Array): Float32Array {
  let squares = 0;
  for (const value of vector) squares += value * value;
  if (squares === 0) return vector;
  const length = Math.sqrt(squares);
  return vector.map((value) => value / length);
}
