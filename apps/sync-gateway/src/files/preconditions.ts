import { type ContentHash, syncError } from '@atomo-cc/sync-protocol';

/** What is asked of the live file at a path before anything is done with it. */
export interface Expectation {
  /** These contents; `any`: a file, whatever it holds. */
  readonly content: readonly string[] | 'any';
  /** True: the file must be one of that; false: it must be none. */
  readonly isWanted: boolean;
}

/** The headers that state conditions. */
export interface Preconditions {
  readonly 'if-match'?: string | undefined;
  readonly 'if-none-match'?: string | undefined;
}

/** A list of entity-tags (RFC 9110 §8.8.3). */
const TAG = String.raw`(?:W/)?"[\x21\x23-\x7e\x80-\uffff]*"`;
const TAGS = new RegExp(String.raw`^${TAG}(?:[ \t]*,[ \t]*${TAG})*$`);

/** What `baseHash` of an operation asks: this content; null: that no file is there; left out: nothing. */
export function expectedBase(base: ContentHash | null | undefined): readonly Expectation[] {
  if (base === undefined) return [];
  return [base === null ? { content: 'any', isWanted: false } : { content: [base], isWanted: true }];
}

/**
 * What If-Match and If-None-Match ask (RFC 9110 §13.1), both of them when both are there. The tag of a file is its content's
 * hash; a weak tag never satisfies If-Match.
 * @throws CodedError VALIDATION_ERROR: whoever asks for a condition must not be served without it
 */
export function expectedByHeaders(headers: Preconditions): readonly Expectation[] {
  const expected: Expectation[] = [];
  for (const [name, isWanted] of [
    ['if-match', true],
    ['if-none-match', false],
  ] as const) {
    const said = headers[name]?.trim();
    if (said === undefined) continue;
    if (said !== '*' && !TAGS.test(said)) {
      throw syncError('VALIDATION_ERROR', `${name} must be * or a list of entity-tags, each in double quotes.`);
    }
    const tags = said.match(new RegExp(TAG, 'g')) ?? [];
    const counted = isWanted ? tags.filter((tag) => tag.startsWith('"')) : tags;
    const content = said === '*' ? 'any' : counted.map((tag) => tag.slice(tag.indexOf('"') + 1, -1));
    expected.push({ content, isWanted });
  }
  return expected;
}

/** Whether all holds of a file with this content; null: no file is there. */
export function isMet(expected: readonly Expectation[], there: ContentHash | null): boolean {
  return expected.every(({ content, isWanted }) => {
    const isOne = there !== null && (content === 'any' || content.includes(there));
    return isOne === isWanted;
  });
}

/** The entity-tag of a content. */
export function tagOf(hash: ContentHash): string {
  return `"${hash}"`;
}
