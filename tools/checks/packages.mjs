// Packages: tagged, named after their folder, with TypeScript references that equal their dependencies.
import path from 'node:path';
import ts from 'typescript';
import { isTestCode } from './tree.mjs';

const SCOPE = '@atomo-cc/';
const TYPES = ['util', 'contract', 'platform', 'engine', 'feature', 'app', 'testing', 'sdk', 'service', 'tool', 'e2e'];

/** @type {import('./run.mjs').Check} */
export const packages = {
  name: 'packages',
  promise: 'every package has one known type tag, is named after its folder and declares what it imports',
  find(tree) {
    const faults = [];
    const root = JSON.parse(tree.text('package.json'));
    for (const { folder, name, type, manifest } of tree.packages) {
      const own = folder.split('/')[1];
      if (!TYPES.includes(type)) {
        faults.push(`${folder}/package.json needs exactly one tag type:… in nx.tags, one of ${TYPES.join(', ')}`);
      }
      if (name !== SCOPE + own) faults.push(`${folder}/package.json must be named ${SCOPE}${own}, not ${name}`);
      if (manifest.nx?.name !== own)
        faults.push(`${folder}/package.json must have nx.name "${own}", the scope of commits`);
      // Test code finds libs/testing and the test tools through the root: they are no part of any image.
      const declared = { ...manifest.dependencies, ...manifest.peerDependencies };
      for (const file of tree.sources.filter((source) => source.startsWith(`${folder}/`))) {
        for (const [used, node] of importedPackages(tree, file)) {
          const isForTests = isTestCode(file) || type === 'testing';
          const known = isForTests ? { ...declared, ...manifest.devDependencies, ...root.devDependencies } : declared;
          // dependency-cruiser holds product code to its npm packages, type-only ones by @types included.
          const isHeldHere = used.startsWith(SCOPE) || isForTests;
          if (isHeldHere && used !== name && !(used in known) && !(isForTests && used === `${SCOPE}testing`)) {
            faults.push(`${tree.place(file, node)} imports ${used}, which ${folder}/package.json does not declare`);
          }
        }
      }
    }
    return faults;
  },
  plants: [
    {
      files: { 'libs/untagged/package.json': '{"name": "@atomo-cc/untagged", "nx": {"name": "untagged", "tags": []}}' },
      expects: 'libs/untagged/package.json needs exactly one tag',
    },
    {
      files: {
        'libs/other/package.json': '{"name": "@atomo-cc/wrong", "nx": {"name": "wrong", "tags": ["type:util"]}}',
      },
      expects: 'libs/other/package.json must be named @atomo-cc/other',
    },
    {
      files: {
        'libs/access/src/planted.ts': "import { model } from '@atomo-cc/schema';\nexport const planted = model;\n",
      },
      expects: 'libs/access/src/planted.ts:1 imports @atomo-cc/schema',
    },
    {
      files: { 'libs/access/src/planted.spec.ts': "import pg from 'pg';\nexport const planted = pg;\n" },
      expects: 'libs/access/src/planted.spec.ts:1 imports pg',
    },
  ],
};

/** @type {import('./run.mjs').Check} */
export const references = {
  name: 'references',
  promise: 'tsconfig references of each package equal its own dependencies, and the root names every package',
  find(tree) {
    const faults = [];
    const folderOf = new Map(tree.packages.map((pkg) => [pkg.name, pkg.folder]));
    const isBuilt = (folder) => tree.exists(`${folder}/tsconfig.json`);
    for (const { folder, manifest } of tree.packages.filter((pkg) => isBuilt(pkg.folder))) {
      const wanted = Object.keys(manifest.dependencies ?? {})
        .filter((name) => name.startsWith(SCOPE))
        .map((name) => folderOf.get(name) ?? name);
      const found = referencesOf(tree, `${folder}/tsconfig.json`);
      for (const missing of without(wanted, found))
        faults.push(`${folder}/tsconfig.json lacks the reference to ${missing}`);
      for (const extra of without(found, wanted)) {
        faults.push(`${folder}/tsconfig.json refers to ${extra}, which ${folder}/package.json does not depend on`);
      }
    }
    const built = tree.packages.map((pkg) => pkg.folder).filter(isBuilt);
    const named = referencesOf(tree, 'tsconfig.json');
    for (const missing of without(built, named)) faults.push(`tsconfig.json lacks the reference to ${missing}`);
    for (const extra of without(named, built)) faults.push(`tsconfig.json refers to ${extra}, which is not there`);
    return faults;
  },
  plants: [
    {
      files: { 'libs/memory/tsconfig.json': '{"references": [{"path": "../queues"}]}' },
      expects: 'libs/memory/tsconfig.json lacks the reference to libs/kernel',
    },
    { files: {}, expects: 'libs/memory/tsconfig.json refers to libs/queues' },
    {
      files: { 'libs/extra/package.json': '{}', 'libs/extra/tsconfig.json': '{}' },
      expects: 'lacks the reference to libs/extra',
    },
  ],
};

const without = (all, taken) => all.filter((item) => !taken.includes(item));

/** The folders that a tsconfig refers to. */
function referencesOf(tree, file) {
  const { config } = ts.parseConfigFileTextToJson(file, tree.text(file) ?? '{}');
  return (config?.references ?? []).map(({ path: to }) => path.posix.join(path.posix.dirname(file), to));
}

/** The packages a file imports by name, as [package, node]; relative files and Node's own modules are left out. */
function importedPackages(tree, file) {
  return tree
    .nodes(file, (node) => ts.isStringLiteral(node) && isModuleName(node))
    .filter((node) => !node.text.startsWith('.') && !node.text.startsWith('node:'))
    .map((node) => [node.text.split('/', node.text.startsWith('@') ? 2 : 1).join('/'), node]);
}

function isModuleName({ parent }) {
  return (
    ts.isImportDeclaration(parent) ||
    ts.isExportDeclaration(parent) ||
    (ts.isCallExpression(parent) && parent.expression.kind === ts.SyntaxKind.ImportKeyword)
  );
}
