import { snippetOf } from './snippet.js';

const FILLER = 'Nothing of interest stands here at all. '.repeat(20);

it('shows the passage that holds most of the words, whatever their ending', () => {
  const snippet = snippetOf(
    `${FILLER}a database. ${FILLER}We are connecting to the databases from R.\n\n${FILLER}`,
    'connect database',
  );
  expect(snippet).toContain('connecting to the databases');
  expect(snippet.length).toBeLessThanOrEqual(204);
  expect(snippet).toMatch(/^… .* …$/);
});

it('shows the beginning when no word is there', () => {
  expect(snippetOf('  Short\n text. ', 'absent')).toBe('Short text.');
  expect(snippetOf(FILLER, 'absent')).toMatch(/^Nothing of interest .* …$/);
  expect(snippetOf('', 'x')).toBe('');
});

it('prefers what the author wrote to what is quoted', () => {
  expect(snippetOf(`> use the vacuum command\n${FILLER}\nThe vacuum command helped.`, 'vacuum command')).toContain(
    'helped',
  );
});

it('cuts no character in half and stands text without white space', () => {
  const emoji = '🎉'.repeat(400);
  expect(snippetOf(emoji, 'x').isWellFormed()).toBe(true);
  expect(snippetOf(`${'x'.repeat(500)} needle ${'y'.repeat(500)}`, 'needle')).toContain('needle');
});
