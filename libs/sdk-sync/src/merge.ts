import { diff3Merge } from 'node-diff3';

/** What to do where both sides changed the same words. */
export type ConflictPolicy = 'copy' | 'markers' | 'mine' | 'theirs';

/** A merged text; `conflicts` counts the places where both sides changed the same words. */
export interface Merged {
  readonly text: string;
  readonly conflicts: number;
}

const MARK_MINE = '<<<<<<< LOCAL';
const MARK_MIDDLE = '=======';
const MARK_THEIRS = '>>>>>>> SERVER';

/**
 * Merges two texts that come from the same base: by line, and where both changed neighbouring lines, by word. What neither
 * decides is a conflict and is filled as `onConflict` says; with `copy` the text is of no use when there are conflicts.
 *
 * Line endings are merged as a property of the file: a side that changed them all has its way, and the other side's edits
 * do not conflict with that.
 */
export function mergeTexts(base: string, mine: string, theirs: string, onConflict: ConflictPolicy): Merged {
  const ends = [base, mine, theirs].map(lineEnd);
  const isUniform = ends.every((end) => end !== 'mixed');
  const [o, a, b] = isUniform
    ? [base, mine, theirs].map((text) => text.replaceAll('\r\n', '\n'))
    : [base, mine, theirs];
  const merged = mergeLines(o!, a!, b!, onConflict);
  if (!isUniform) return merged;
  const chosen = ends[1] === null || ends[1] === ends[0] ? (ends[2] ?? ends[1] ?? ends[0]) : ends[1];
  return chosen === '\r\n' ? { ...merged, text: merged.text.replaceAll('\n', '\r\n') } : merged;
}

function lineEnd(text: string): '\n' | '\r\n' | 'mixed' | null {
  const all = text.split('\n').length - 1;
  if (all === 0) return null;
  const windows = text.split('\r\n').length - 1;
  if (windows === 0) return '\n';
  return windows === all ? '\r\n' : 'mixed';
}

function mergeLines(base: string, mine: string, theirs: string, onConflict: ConflictPolicy): Merged {
  const lines: string[] = [];
  let conflicts = 0;
  for (const part of diff3Merge(mine.split('\n'), base.split('\n'), theirs.split('\n'))) {
    if (part.ok) {
      lines.push(...part.ok);
      continue;
    }
    const { a, o, b } = part.conflict!;
    const byWord = mergeWords(o, a, b);
    if (byWord) {
      lines.push(...byWord);
      continue;
    }
    conflicts += 1;
    if (onConflict === 'mine') lines.push(...a);
    else if (onConflict === 'theirs') lines.push(...b);
    else lines.push(MARK_MINE, ...a, MARK_MIDDLE, ...b, MARK_THEIRS);
  }
  return { text: lines.join('\n'), conflicts };
}

/** The lines of a hunk that both sides changed, when they changed different words of it; null when they did not. */
function mergeWords(base: readonly string[], mine: readonly string[], theirs: readonly string[]): string[] | null {
  // A side that removed whole lines or came to lines where none were: words prove nothing about what was meant.
  if (base.length === 0 || mine.length === 0 || theirs.length === 0) return null;
  const parts = diff3Merge(words(mine), words(base), words(theirs));
  if (parts.some((part) => part.conflict)) return null;
  return parts
    .flatMap((part) => part.ok!)
    .join('')
    .split('\n');
}

function words(lines: readonly string[]): string[] {
  return lines.join('\n').match(/\n|[^\S\n]+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];
}
