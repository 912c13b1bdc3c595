/** English words that say little about what a text is about, and the marks of replies. */
const STOP_WORDS = new Set(
  `a about after all also am an and any are as at be because been before being but by can cannot could did do does doing
   don down during each few for from further get had has have having he her here hers him his how i if in into is it its
   just me more most my no nor not now of off on once only or other our out over own re s same she should so some such t
   than that the their them then there these they this those through to too under until up use using very was we were
   what when where which while who whom why will with would you your fwd fw aw hi hello thanks thank regards wrote`
    .split(/\s+/)
    .filter(Boolean),
);

/** True for a word that is too common to say what a text is about. */
export function isStopWord(word: string): boolean {
  return STOP_WORDS.has(word);
}

/** Folds case and accents: what is left compares equal where a person would read the same word. */
export function fold(text: string): string {
  return text
    .normalize('NFKD')
    .replace(/\p{M}+/gu, '')
    .toLowerCase();
}

/** The words of a text, folded, in order: runs of letters and digits. */
export function wordsOf(text: string): string[] {
  return fold(text).match(/[\p{L}\p{N}]+/gu) ?? [];
}

/**
 * Takes the commonest English endings off a folded word, so that "connecting" and "connections" meet. Lighter than
 * Porter's stemmer: it makes no attempt at derivations, which more often join strangers than kin.
 */
export function stem(word: string): string {
  if (word.length <= 3 || /\d/.test(word)) return word;
  let stemmed = word;
  if (stemmed.endsWith('sses')) stemmed = stemmed.slice(0, -2);
  else if (stemmed.endsWith('ies')) stemmed = `${stemmed.slice(0, -3)}y`;
  else if (/[^su]s$/.test(stemmed)) stemmed = stemmed.slice(0, -1);
  const cut = /^(.*[aeiouy].*?)(?:ing|edly|ed|ions?|ment)$/.exec(stemmed)?.[1];
  if (cut !== undefined && cut.length >= 3) stemmed = cut.replace(/([bdfgmnprt])\1$/, '$1');
  return stemmed.length > 4 && stemmed.endsWith('e') ? stemmed.slice(0, -1) : stemmed;
}
