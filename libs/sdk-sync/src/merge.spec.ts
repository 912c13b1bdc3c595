import fc from 'fast-check';
import { mergeTexts } from './merge.js';

const text = (...lines: string[]) => lines.join('\n');

describe('the merge of two texts from one base', () => {
  const base = text('# Title', 'one two three', 'end', '');

  it('takes both sides where they changed different lines', () => {
    const merged = mergeTexts(
      base,
      text('# New title', 'one two three', 'end', ''),
      base.replace('end', 'the end'),
      'copy',
    );
    expect(merged).toEqual({ text: text('# New title', 'one two three', 'the end', ''), conflicts: 0 });
  });

  it('takes both sides where they changed different words of a line', () => {
    const merged = mergeTexts(base, base.replace('one', 'ONE'), base.replace('three', '3'), 'copy');
    expect(merged).toEqual({ text: base.replace('one two three', 'ONE two 3'), conflicts: 0 });
  });

  it.each([
    ['mine', 'one 2 three'],
    ['theirs', 'one II three'],
    ['markers', text('<<<<<<< LOCAL', 'one 2 three', '=======', 'one II three', '>>>>>>> SERVER')],
  ] as const)('fills a conflict as the policy %s says', (policy, expected) => {
    const merged = mergeTexts(base, base.replace('two', '2'), base.replace('two', 'II'), policy);
    expect(merged).toEqual({ text: base.replace('one two three', expected), conflicts: 1 });
  });

  it('does not put two new paragraphs at one place together by word', () => {
    expect(mergeTexts('a\n', 'a\nmine\n', 'a\ntheirs\n', 'copy').conflicts).toBe(1);
  });

  it('keeps line endings, and lets one side change them all', () => {
    const windows = (unix: string) => unix.replaceAll('\n', '\r\n');
    const mine = base.replace('one', '1');
    const theirs = base.replace('end', 'fin');
    const both = mine.replace('end', 'fin');
    expect(mergeTexts(windows(base), windows(mine), windows(theirs), 'copy').text).toBe(windows(both));
    expect(mergeTexts(base, windows(mine), theirs, 'copy')).toEqual({ text: windows(both), conflicts: 0 });
    expect(mergeTexts(base, mine, windows(theirs), 'copy')).toEqual({ text: windows(both), conflicts: 0 });
  });

  it('gives a side its text where the other changed nothing or the same, whatever their line endings', () => {
    const any = fc
      .array(fc.constantFrom('a', 'b', 'a b', '', '\n', '\n', '\r\n', '\r'), { maxLength: 12 })
      .map((parts) => parts.join(''));
    fc.assert(
      fc.property(any, any, fc.constantFrom('copy', 'markers', 'mine', 'theirs'), (from, to, policy) => {
        const whole = { text: to, conflicts: 0 };
        expect(mergeTexts(from, to, from, policy)).toEqual(whole);
        expect(mergeTexts(from, from, to, policy)).toEqual(whole);
        expect(mergeTexts(from, to, to, policy)).toEqual(whole);
      }),
      { numRuns: 2_000 },
    );
  });

  it('is right for all edits of different lines, and loses no word when it reports no conflict', () => {
    const words = fc.array(fc.constantFrom('red', 'green', 'blue', 'sun', 'moon'), { minLength: 1, maxLength: 5 });
    const lines = fc.array(
      words.map((all) => all.join(' ')),
      { minLength: 4, maxLength: 20 },
    );
    fc.assert(
      fc.property(lines, fc.nat(), fc.nat(), fc.nat(), fc.nat(), (from, where, whereElse, word, wordElse) => {
        const edit = (line: number, at: number, token: string) =>
          from.map((each, index) => {
            const parts = each.split(' ');
            if (index === line % from.length) parts.splice(at % (parts.length + 1), 0, token);
            return parts.join(' ');
          });
        const [mine, theirs] = [edit(where, word, 'MINE'), edit(whereElse, wordElse, 'THEIRS')];
        const merged = mergeTexts(from.join('\n'), mine.join('\n'), theirs.join('\n'), 'copy');
        if (merged.conflicts > 0) return;
        expect(merged.text.match(/MINE/g)).toHaveLength(1);
        expect(merged.text.match(/THEIRS/g)).toHaveLength(1);
        const others = merged.text.split(/\s+/).filter((each) => each !== 'MINE' && each !== 'THEIRS');
        expect(others).toEqual(from.join(' ').split(' '));
      }),
      { numRuns: 1_000 },
    );
  });
});
