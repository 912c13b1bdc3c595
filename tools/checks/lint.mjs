// Runs oxlint with its type-aware rules over the tree, by the repository's `.oxlintrc.json`.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { ROOMS } from './tree.mjs';

const repository = path.join(path.dirname(fileURLToPath(import.meta.url)), '../..');
const oxlint = path.join(repository, 'node_modules/oxlint/bin/oxlint');
/** Named one by one: walking the root would follow the links in node_modules. */
const ROOT_FILES = ['.dependency-cruiser.cjs', 'commitlint.config.js', 'jest.config.js', 'jest.preset.js'];

const MAX_REPORT_BYTES = 64 * 1024 * 1024;

/** @type {import('./run.mjs').Check} */
export const lint = {
  name: 'lint',
  promise: 'oxlint finds nothing, type-aware rules included',
  find(tree) {
    const rules = ['--type-aware', '--config', path.join(repository, '.oxlintrc.json'), '--format', 'json'];
    const args = [oxlint, ...rules, ...[...ROOMS, ...ROOT_FILES].filter((file) => tree.exists(file))];
    const run = spawnSync(process.execPath, args, { cwd: tree.root, encoding: 'utf8', maxBuffer: MAX_REPORT_BYTES });
    let report;
    try {
      report = JSON.parse(run.stdout);
    } catch {
      return [`oxlint gave no report: ${(run.stderr + run.stdout || String(run.error ?? '')).trim().slice(0, 2000)}`];
    }
    return report.diagnostics.map(({ filename, labels, code, message, help }) => {
      const line = labels?.[0]?.span?.line;
      return `${filename}${line ? `:${line}` : ''} ${code}: ${message}${help ? ` ${help}` : ''}`;
    });
  },
  plants: [
    {
      files: {
        'libs/access/src/planted.ts':
          'export const a = (value: any): number => value as number;\n' +
          'export async function later(): Promise<number> {\n  return Promise.resolve(1);\n}\n' +
          'export function forget(): void {\n  later();\n}\n',
      },
      expects: 'libs/access/src/planted.ts:1 typescript(no-explicit-any)',
    },
    { files: {}, expects: 'libs/access/src/planted.ts:6 typescript(no-floating-promises)' },
  ],
};
