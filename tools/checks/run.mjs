// `node tools/checks/run.mjs [name…]` holds the house to its rules (ARCHITECTURE.md, CONTRIBUTING.md) by machine.
//
// Each check is run over the repository and then proved by its canary: it must pass a small sound tree and report every
// fault planted into it. Exit 1 on any fault. Without names all checks run.
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { boundaries } from './boundaries.mjs';
import { canaryFaults } from './canary.mjs';
import { constructors, environment, frontDoors, names, wiring } from './code.mjs';
import { deployment } from './deployment.mjs';
import { architecture, errorCodes, threats, variables } from './documents.mjs';
import { lint } from './lint.mjs';
import { packages, references } from './packages.mjs';
import { Tree } from './tree.mjs';
import { typeImports } from './type-imports.mjs';

/**
 * @typedef {object} Check
 * @property {string} name short, used on the command line
 * @property {string} promise what holds when it passes
 * @property {(tree: Tree) => string[] | Promise<string[]>} find one sentence per fault, with its place and what to do
 * @property {{files: Record<string, string | null>, expects: string}[]} plants faults for the canary: files to write over
 *   the sound tree (null removes one), and the words a report must hold
 */

/** @type {Check[]} */
const checks = [
  boundaries,
  packages,
  references,
  lint,
  typeImports,
  environment,
  constructors,
  wiring,
  names,
  frontDoors,
  architecture,
  errorCodes,
  threats,
  variables,
  deployment,
];

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !checks.some((check) => check.name === name));
if (unknown.length > 0) {
  console.error(`Unknown check: ${unknown.join(', ')}. There are: ${checks.map((check) => check.name).join(', ')}.`);
  process.exit(1);
}

const tree = new Tree(path.join(path.dirname(fileURLToPath(import.meta.url)), '../..'));
let failed = 0;
for (const check of checks) {
  if (wanted.length > 0 && !wanted.includes(check.name)) continue;
  const faults = await check.find(tree);
  const canary = await canaryFaults(check);
  if (faults.length + canary.length > 0) failed += 1;
  console.log(`${faults.length + canary.length > 0 ? '✗' : '✓'} ${check.name.padEnd(14)} ${check.promise}`);
  for (const fault of faults) console.log(`    ${fault}`);
  for (const fault of canary) console.log(`    canary: the check itself is broken: ${fault}`);
}
if (failed > 0) {
  console.error(`${failed} of the checks failed.`);
  process.exit(1);
}
