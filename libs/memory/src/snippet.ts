import { fold, isStopWord, stem, wordsOf } from './words.js';

/** Length of a snippet in characters, not counting the dots where it was cut. */
const SNIPPET_CHARS = 200;
/** Text that is looked through; a hit further on shows the beginning. */
const MAX_SCANNED_CHARS = 50_000;

/**
 * The passage of about 200 characters that holds most of the query's words, white space made single. A passage of the
 * author's own beats a quoted one. Without any of the words it is the beginning.
 */
export function snippetOf(text: string, query: string): string {
  const wanted = new Set(
    wordsOf(query)
      .filter((word) => !isStopWord(word))
      .map(stem),
  );
  const plain = tidy(text.slice(0, MAX_SCANNED_CHARS));
  const places = wordPlaces(plain).filter((word) => wanted.has(word.root));
  let best = { start: 0, value: -1 };
  let from = 0;
  for (const [index, place] of places.entries()) {
    while (place.end - places[from]!.start > SNIPPET_CHARS && from < index) from += 1;
    const inside = places.slice(from, index + 1);
    const distinct = new Set(inside.map((one) => one.root)).size;
    const value = distinct * 10 + Math.min(inside.length, 9);
    if (value > best.value) best = { start: places[from]!.start, value };
  }
  return cutAt(plain, best.value < 0 ? 0 : best.start);
}

/** Quoted lines go behind the others, without their marks. */
function tidy(text: string): string {
  const own: string[] = [];
  const quoted: string[] = [];
  for (const line of text.split(/\r?\n/)) (/^\s*>/.test(line) ? quoted : own).push(line.replace(/^(?:\s*>)+/, ''));
  return [...own, ...quoted].join(' ').replaceAll(/\s+/g, ' ').trim();
}

function wordPlaces(text: string): { start: number; end: number; root: string }[] {
  return [...text.matchAll(/[\p{L}\p{M}\p{N}]+/gu)].map((match) => ({
    start: match.index,
    end: match.index + match[0].length,
    root: stem(fold(match[0])),
  }));
}

/** Cuts around a place, at white space, with a little of what stands before it. */
function cutAt(text: string, place: number): string {
  let start = Math.max(0, Math.min(place - 40, text.length - SNIPPET_CHARS));
  if (start > 0) {
    const space = text.indexOf(' ', start);
    start = space >= 0 && space < place ? space + 1 : place;
  }
  let end = Math.min(text.length, start + SNIPPET_CHARS);
  if (end < text.length) {
    const space = text.lastIndexOf(' ', end);
    if (space > start + SNIPPET_CHARS / 2) end = space;
  }
  const passage = text.slice(start, end).toWellFormed().trim();
  return `${start > 0 ? '… ' : ''}${passage}${end < text.length ? ' …' : ''}`;
}
