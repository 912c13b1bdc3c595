import type { PatternDefinition } from './model.js';

/**
 * Patterns that cannot be made to hang. JavaScript's own engine backtracks: `^(a+)+$` takes minutes over forty characters, and
 * no bound on the input that still lets names through helps. Here a pattern becomes a machine whose states are followed all at once
 * (Thompson 1968), so a match costs at most the pattern's states times the text's characters. The price: no look-around, no
 * references back to groups, no word boundaries; none of them can be matched that way, and a rule of a field rarely needs one.
 * What a single character may be (`[a-z]`, `\d`, `\p{L}`) is still left to JavaScript's engine, one character at a time.
 */

/** States a pattern may have, with its counted repetitions written out: `[a-z]{0,500}` has about a thousand. */
export const MAX_PATTERN_STATES = 2_000;
/** Flags that mean something here: ignore case, Unicode (always on), and a dot that takes line ends. */
const FLAGS = /^[ius]*$/;

/** Tells whether a text matches, anywhere in it unless the pattern is anchored. */
export type Matcher = (text: string) => boolean;

/** What `compilePattern` makes. */
export type CompiledPattern = { readonly matches: Matcher } | { readonly fault: string };

type Node =
  | { readonly kind: 'start' | 'end' }
  | { readonly kind: 'one'; readonly takes: (character: string) => boolean }
  | { readonly kind: 'all' | 'any'; readonly parts: readonly Node[] }
  | { readonly kind: 'repeat'; readonly part: Node; readonly least: number; readonly most: number };

type State =
  | { readonly kind: 'take'; readonly takes: (character: string) => boolean; next: number }
  | { readonly kind: 'fork'; readonly to: number[] }
  | { readonly kind: 'start' | 'end'; next: number }
  | { readonly kind: 'done' };

/** Makes the matcher of a pattern, or says why it cannot be one. */
export function compilePattern({ source, flags }: PatternDefinition): CompiledPattern {
  if (!FLAGS.test(flags)) return { fault: `the flags ${flags} are not all of i, u and s` };
  let node: Node;
  try {
    void new RegExp(source, `${flags.replaceAll('u', '')}u`);
    node = new Reader(source, flags).read();
    const states: State[] = [];
    const first = build(node, states, add(states, { kind: 'done' }));
    return { matches: (text) => run(states, first, text) };
  } catch (error) {
    return { fault: (error as Error).message };
  }
}

/** Reads what JavaScript has already found to be a well-formed pattern. */
class Reader {
  private at = 0;
  private readonly characterFlags: string;

  constructor(
    private readonly source: string,
    flags: string,
  ) {
    this.characterFlags = `${flags.replaceAll('u', '')}u`;
  }

  read(): Node {
    const node = this.alternatives();
    if (this.at < this.source.length) throw new SyntaxError(`an unexpected ${this.source[this.at]} at ${this.at}`);
    return node;
  }

  private alternatives(): Node {
    const parts = [this.sequence()];
    while (this.source[this.at] === '|') {
      this.at += 1;
      parts.push(this.sequence());
    }
    return parts.length === 1 ? parts[0]! : { kind: 'any', parts };
  }

  private sequence(): Node {
    const parts: Node[] = [];
    while (this.at < this.source.length && this.source[this.at] !== '|' && this.source[this.at] !== ')') {
      parts.push(this.repeated(this.single()));
    }
    return { kind: 'all', parts };
  }

  private single(): Node {
    const rest = this.source.slice(this.at);
    if (rest.startsWith('(')) {
      const open = /^\((?:\?:|\?<[\p{L}_$][\p{L}\p{N}_$]*>)?(?!\?)/u.exec(rest)?.[0];
      if (open === undefined)
        throw new SyntaxError('it looks ahead or behind, or changes flags, which is not supported');
      this.at += open.length;
      const inner = this.alternatives();
      this.at += 1;
      return inner;
    }
    if (rest.startsWith('^') || rest.startsWith('$')) {
      this.at += 1;
      return { kind: rest.startsWith('^') ? 'start' : 'end' };
    }
    if (/^\\[bB]/.test(rest)) throw new SyntaxError('it has a word boundary, which is not supported');
    if (/^\\(k|[1-9])/.test(rest)) throw new SyntaxError('it refers back to a group, which is not supported');
    const one =
      /^(?:\[(?:\\.|[^\]\\])*\]|\\(?:u\{[0-9a-f]+\}|u[0-9a-f]{4}|x[0-9a-f]{2}|c[a-z]|[pP]\{[^}]*\}|.)|.)/isu.exec(
        rest,
      )![0];
    this.at += one.length;
    const character = new RegExp(`^${one}$`, this.characterFlags);
    return { kind: 'one', takes: (text) => character.test(text) };
  }

  private repeated(part: Node): Node {
    const found = /^(?:[*+?]|\{(\d+)(,?)(\d*)\})\??/.exec(this.source.slice(this.at));
    if (!found) return part;
    this.at += found[0].length;
    // Lazy or greedy, the same texts match.
    const sign = found[0][0];
    if (sign !== '{') return { kind: 'repeat', part, least: sign === '+' ? 1 : 0, most: sign === '?' ? 1 : Infinity };
    const least = Number(found[1]);
    return { kind: 'repeat', part, least, most: found[3] ? Number(found[3]) : found[2] ? Infinity : least };
  }
}

function add(states: State[], state: State): number {
  if (states.length >= MAX_PATTERN_STATES) {
    throw new RangeError(
      `it has more than ${MAX_PATTERN_STATES} states when its repetitions are written out; count less far`,
    );
  }
  return states.push(state) - 1;
}

/** Adds the states of a node in front of `next`, and answers the first of them. */
function build(node: Node, states: State[], next: number): number {
  switch (node.kind) {
    case 'start':
    case 'end':
      return add(states, { kind: node.kind, next });
    case 'one':
      return add(states, { kind: 'take', takes: node.takes, next });
    case 'all':
      return node.parts.reduceRight((behind, part) => build(part, states, behind), next);
    case 'any':
      return add(states, { kind: 'fork', to: node.parts.map((part) => build(part, states, next)) });
    case 'repeat': {
      let first = next;
      if (node.most === Infinity) {
        const to = [next];
        first = add(states, { kind: 'fork', to });
        to.push(build(node.part, states, first));
      } else {
        for (let i = node.least; i < node.most; i += 1) {
          first = add(states, { kind: 'fork', to: [build(node.part, states, first), next] });
        }
      }
      for (let i = 0; i < node.least; i += 1) {
        const before = states.length;
        first = build(node.part, states, first);
        // What takes nothing takes nothing however often, and would be counted here for ever.
        if (states.length === before) break;
      }
      return first;
    }
  }
}

function run(states: readonly State[], first: number, text: string): boolean {
  const characters = [...text];
  let current = new Set<number>();
  for (let at = 0; at <= characters.length; at += 1) {
    // A match may begin anywhere.
    if (reach(states, first, at, characters.length, current)) return true;
    if (at === characters.length) break;
    const next = new Set<number>();
    let isDone = false;
    for (const index of current) {
      const state = states[index]!;
      if (state.kind === 'take' && state.takes(characters[at]!)) {
        isDone = reach(states, state.next, at + 1, characters.length, next) || isDone;
      }
    }
    if (isDone) return true;
    current = next;
  }
  return false;
}

/** Adds every state that is reached without taking a character; true when the end is among them. */
function reach(states: readonly State[], from: number, at: number, length: number, reached: Set<number>): boolean {
  const open = [from];
  while (open.length > 0) {
    const index = open.pop()!;
    if (reached.has(index)) continue;
    reached.add(index);
    const state = states[index]!;
    if (state.kind === 'done') return true;
    if (state.kind === 'fork') open.push(...state.to);
    if (state.kind === 'start' && at === 0) open.push(state.next);
    if (state.kind === 'end' && at === length) open.push(state.next);
  }
  return false;
}
