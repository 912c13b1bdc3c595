import fc from 'fast-check';
import { compilePattern, MAX_PATTERN_STATES } from './pattern.js';

function matcher(pattern: RegExp | string, flags = 'u') {
  const { source } = typeof pattern === 'string' ? { source: pattern } : pattern;
  const compiled = compilePattern({ source, flags });
  if ('fault' in compiled) throw new Error(compiled.fault);
  return compiled.matches;
}

describe('a pattern', () => {
  it.each([
    ['^[A-Z]{2}\\d+$', ['AB1', 'AB123'], ['AB', 'ab1', 'AB1x', 'xAB1', '']],
    ['b', ['b', 'abc'], ['', 'ac']],
    ['^$', [''], ['a']],
    ['^(?:red|green|blue)$', ['red', 'blue'], ['redgreen', 'r']],
    ['^(a|b)*c?$', ['', 'ab', 'abc', 'c'], ['cc', 'ad']],
    ['^a{2,3}$', ['aa', 'aaa'], ['a', 'aaaa']],
    ['^a{2,}?$', ['aa', 'aaaaaa'], ['a']],
    ['^.$', ['a', '👩'], ['', 'ab', '\n']],
    ['^\\p{L}+$', ['Zoë', 'Ω', '漢'], ['a1', '']],
    ['^[^\\]a-c]$', ['d', '-'], ['a', ']', '']],
    ['^\\u{1F469}\\x41\\/$', ['👩A/'], ['👩B/']],
    ['^(?<year>\\d{4})$', ['2026'], ['20266']],
    ['a$|^b', ['xa', 'bx'], ['ax', 'xb']],
    ['(?:)*x', ['x'], ['']],
    ['(a*)*$', ['', 'aab'], []],
  ])('%s', (source, right, wrong) => {
    const matches = matcher(source);
    for (const text of right) expect([text, matches(text)]).toEqual([text, true]);
    for (const text of wrong) expect([text, matches(text)]).toEqual([text, false]);
  });

  it('may ignore case, and let the dot take line ends', () => {
    expect(matcher('^straße$', 'i')('STRAßE')).toBe(true);
    expect(matcher('^a.b$', 's')('a\nb')).toBe(true);
    expect(matcher('^a.b$')('a\nb')).toBe(false);
  });

  const atom = fc.constantFrom(
    'a',
    'b',
    '.',
    '[ab]',
    '[^a]',
    '\\w',
    '\\d',
    '(?:a|bc)',
    '(b)',
    '^',
    '$',
    '👩',
    '(?:|a)',
    '(?:a*b?)',
  );
  const quantifier = fc.constantFrom('', '', '*', '+', '?', '{2}', '{1,}', '{0,2}', '*?', '{3}?');
  const piece = fc.tuple(atom, quantifier).map(([one, often]) => (one === '^' || one === '$' ? one : one + often));
  const source = fc
    .array(
      fc.array(piece, { maxLength: 5 }).map((pieces) => pieces.join('')),
      { minLength: 1, maxLength: 3 },
    )
    .map((alternatives) => alternatives.join('|'));
  const text = fc.string({ unit: fc.constantFrom('a', 'b', 'c', '1', '\n', '👩', ' '), maxLength: 12 });

  it('matches exactly what the language’s own engine matches', () => {
    fc.assert(
      fc.property(
        source,
        fc.array(text, { minLength: 1, maxLength: 5 }),
        fc.constantFrom('u', 'iu', 'su'),
        (pattern, texts, flags) => {
          const matches = matcher(pattern, flags);
          for (const each of texts)
            expect([pattern, each, matches(each)]).toEqual([pattern, each, new RegExp(pattern, flags).test(each)]);
        },
      ),
      { numRuns: 1_000 },
    );
  });

  it.each(['^(a+)+$', '^(a|a)*$', '^(a|aa)+$', '^a*a*a*a*a*a*$', '(x+x+)+y'])('%s does not hang', (pattern) => {
    // The language's own engine would take years over the first three.
    const text = `${'a'.repeat(5_000)}${'x'.repeat(5_000)}!`;
    const began = process.cpuUsage();
    expect(matcher(pattern)(text)).toBe(false);
    expect(process.cpuUsage(began).user / 1_000_000).toBeLessThan(5);
  });

  it.each([
    ['(?=a)', /looks ahead/],
    ['(?<!a)b', /looks ahead or behind/],
    ['(a)\\1', /refers back/],
    ['(?<x>a)\\k<x>', /refers back/],
    ['\\ba', /word boundary/],
    ['a{5000}', /more than 2000 states/],
    ['(?:(?:a{50}){50}){50}', /more than/],
    ['(', /./],
    ['[z-a]', /./],
    ['\\-', /./],
  ])('%s is refused', (pattern, reason) => {
    expect(compilePattern({ source: pattern, flags: '' })).toEqual({ fault: expect.stringMatching(reason) });
  });

  it('is refused with flags that mean nothing here', () => {
    expect(compilePattern({ source: 'a', flags: 'g' })).toHaveProperty('fault');
    expect(compilePattern({ source: 'a', flags: 'iu' })).not.toHaveProperty('fault');
  });

  it('has a bound on its states that its longest repetition just meets', () => {
    expect(compilePattern({ source: `a{${MAX_PATTERN_STATES - 1}}`, flags: '' })).not.toHaveProperty('fault');
    expect(compilePattern({ source: `a{${MAX_PATTERN_STATES}}`, flags: '' })).toHaveProperty('fault');
    expect(compilePattern({ source: '(?:(?:(?:){99999999}){99999999}){99999999}', flags: '' })).not.toHaveProperty(
      'fault',
    );
  });
});
