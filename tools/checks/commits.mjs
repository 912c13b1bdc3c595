// `node tools/checks/commits.mjs [how many]` lints the newest commits of HEAD (50 unless told) by commitlint.config.js.
//
// It asks for no base branch, so it works in a shallow clone: there it lints the commits that are present. Merges are
// left out, as commitlint itself does. First it proves on a bad and a good message that the rules are in force.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import lint from '@commitlint/lint';
import load from '@commitlint/load';

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), '../..');

/** Older commits cannot be mended any more; a branch under review is seldom longer. */
const DEFAULT_COUNT = 50;

const count = Number(process.argv[2] ?? DEFAULT_COUNT);
if (!Number.isInteger(count) || count < 1) {
  console.error('Say how many commits to lint: node tools/checks/commits.mjs 50');
  process.exit(1);
}

const { rules, parserPreset, defaultIgnores, ignores } = await load({}, { cwd: root });
const judge = (message) => lint(message, rules, { parserOpts: parserPreset?.parserOpts, defaultIgnores, ignores });

const canaries = [
  ['feat(repo): one command boots all services', true],
  ['feat(nowhere): a scope that is no project', false],
  ['feat: no scope', false],
  ['made things better', false],
  [`fix(repo): a line too long\n\n${'x'.repeat(121)}`, false],
];
for (const [message, isGood] of canaries) {
  if ((await judge(message)).valid === isGood) continue;
  console.error(`The rules are not in force: "${message.split('\n')[0]}" was ${isGood ? 'refused' : 'accepted'}.`);
  process.exit(1);
}

// %x00 parts commits and %x1f the hash from the message; neither occurs in a message.
const log = spawnSync('git', ['log', '--no-merges', `--max-count=${count}`, '--format=%h%x1f%B%x00', 'HEAD'], {
  cwd: root,
  encoding: 'utf8',
});
if (log.status !== 0) {
  // A tarball, an image or a repository without a first commit has nothing to lint.
  console.log(`no commits to lint: ${(log.stderr ?? String(log.error)).trim().split('\n')[0]}`);
  process.exit(0);
}

let bad = 0;
const commits = log.stdout
  .split('\0')
  .map((entry) => entry.trim())
  .filter(Boolean);
for (const commit of commits) {
  const [hash, message] = commit.split('\x1f');
  const { valid, errors } = await judge(message);
  if (valid) continue;
  bad += 1;
  console.log(`✗ ${hash} ${message.split('\n')[0]}`);
  for (const { message: fault, name } of errors) console.log(`    ${name}: ${fault}`);
}
console.log(`${commits.length} commits linted, ${bad} bad`);
process.exit(bad > 0 ? 1 : 0);
