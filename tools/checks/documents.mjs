// Lists that people read, held to the code: rooms in ARCHITECTURE.md, codes in docs/errors.md, variables in .env.example, tests in
// docs/security.md.
import ts from 'typescript';
import { isConfigFile } from './code.mjs';

/** @type {import('./run.mjs').Check} */
export const architecture = {
  name: 'architecture',
  promise: 'ARCHITECTURE.md names every app and lib, and only folders that exist (or come "later")',
  find(tree) {
    const text = tree.text('ARCHITECTURE.md');
    if (text === undefined) return ['ARCHITECTURE.md is missing'];
    const faults = [];
    for (const { folder } of tree.packages.filter((pkg) => /^(apps|libs)\//.test(pkg.folder))) {
      const own = folder.split('/')[1];
      // As a path, as a package or as a line of the drawn tree ("  kernel/ …"); the bare word may be mere prose.
      const isNamed = new RegExp(`(${folder}|@atomo-cc/${own})(?![\\w-])|(^|[\\s\`│├└─])${own}/`, 'm').test(text);
      if (!isNamed) faults.push(`ARCHITECTURE.md does not name ${folder}: say in a line what it is for`);
    }
    for (const line of text.split('\n').filter((each) => !/\blater\b/i.test(each))) {
      for (const [folder] of line.matchAll(/\b(apps|libs|services|tools)\/[a-z][a-z0-9-]*(?![\w*<-])/g)) {
        if (!tree.exists(folder)) faults.push(`ARCHITECTURE.md names ${folder}, which is not there`);
      }
    }
    return faults;
  },
  plants: [
    {
      files: {
        'ARCHITECTURE.md': 'apps/content-core libs/gone; memory is mentioned in prose\nlibs/future comes later\n',
      },
      expects: 'does not name libs/memory',
    },
    { files: {}, expects: 'names libs/gone, which is not there' },
  ],
};

/** @type {import('./run.mjs').Check} */
export const errorCodes = {
  name: 'errors',
  promise: 'docs/errors.md lists every error code (keys of …_ERRORS) and no other',
  find(tree) {
    const text = tree.text('docs/errors.md');
    if (text === undefined) return ['docs/errors.md is missing'];
    const declared = new Map();
    for (const file of [
      ...tree.productSources,
      ...tree.sources.filter((source) => /^tools\/.*(?<!\.spec)\.ts$/.test(source)),
    ]) {
      for (const [code, node] of codesIn(tree, file)) declared.set(code, tree.place(file, node));
    }
    // A listed code is the first cell of a table row, or a heading of its own.
    const listed = new Set(
      [...text.matchAll(/^(?:\|\s*|#+\s+)`?([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*)`?\s*(?:\||$)/gm)].map(([, code]) => code),
    );
    return [
      ...[...declared]
        .filter(([code]) => !listed.has(code))
        .map(([code, place]) => `docs/errors.md lacks ${code} (${place})`),
      ...[...listed]
        .filter((code) => !declared.has(code))
        .map((code) => `docs/errors.md lists ${code}, which no …_ERRORS declares`),
    ];
  },
  plants: [
    {
      files: {
        'libs/access/src/errors.ts': "export const ACCESS_ERRORS = { SESSION_ENDED: 'Log in again.' } as const;\n",
      },
      expects: 'docs/errors.md lacks SESSION_ENDED (libs/access/src/errors.ts:1)',
    },
    { files: { 'docs/errors.md': '| `NOT_FOUND` | x |\n| `OLD_CODE` | x |\n' }, expects: 'lists OLD_CODE' },
  ],
};

/** Keys of exported constants whose name ends in ERRORS, as [code, node]. */
function codesIn(tree, file) {
  const isCatalogue = (node) =>
    ts.isVariableDeclaration(node) &&
    ts.isIdentifier(node.name) &&
    /(^|_)ERRORS$/.test(node.name.text) &&
    ts.isSourceFile(node.parent.parent.parent) &&
    !!node.initializer;
  return tree.nodes(file, isCatalogue).flatMap((node) => {
    let value = node.initializer;
    while (ts.isAsExpression(value) || ts.isSatisfiesExpression(value)) value = value.expression;
    if (!ts.isObjectLiteralExpression(value)) return [];
    return value.properties.filter((each) => each.name && 'text' in each.name).map((each) => [each.name.text, each]);
  });
}

/** @type {import('./run.mjs').Check} */
export const threats = {
  name: 'threats',
  promise: 'every row of a threat table in docs/security.md names the tests that show it, and they are there',
  find(tree) {
    const text = tree.text('docs/security.md');
    if (text === undefined) return ['docs/security.md is missing'];
    const faults = [];
    let isThreats = false;
    for (const line of text.split('\n')) {
      const cells = line.split('|').map((cell) => cell.trim());
      if (!line.startsWith('|')) isThreats = false;
      else if (/\btest$/.test(cells.at(-2))) isThreats = true;
      else if (isThreats && !/^-+$/.test(cells.at(-2))) {
        const tests = [...cells.at(-2).matchAll(/`([^`]+\.spec\.ts)`/g)].map(([, test]) => test);
        if (tests.length === 0 && !cells.at(-2).startsWith('the same')) {
          faults.push(`docs/security.md: "${cells[2]}" names no test`);
        }
        for (const test of tests) {
          if (tree.sources.some((file) => `/${file}`.endsWith(`/${test}`))) continue;
          faults.push(`docs/security.md names ${test}, which is not there`);
        }
      }
    }
    return faults;
  },
  plants: [
    {
      files: {
        'docs/security.md':
          '| who | way in | what | test |\n| --- | --- | --- | --- |\n| anyone | guesses | a brake | `gone.spec.ts` |\n| anyone | waits | time | by hand |\n',
      },
      expects: 'names gone.spec.ts, which is not there',
    },
    { files: {}, expects: '"waits" names no test' },
  ],
};

/** @type {import('./run.mjs').Check} */
export const variables = {
  name: 'variables',
  promise: '.env.example names exactly the variables that config.ts files declare and docker-compose.yml asks for',
  find(tree) {
    const text = tree.text('.env.example');
    if (text === undefined) return ['.env.example is missing'];
    const declared = declaredVariables(tree);
    // What docker-compose.yml takes from .env besides (the database's password) is learnt there too.
    for (const [, name] of (tree.text('docker-compose.yml') ?? '').matchAll(/\$\{([A-Z][A-Z0-9_]*)/g)) {
      if (!declared.has(name)) declared.set(name, 'docker-compose.yml');
    }
    // A commented line `# NAME=value` names a variable too: it shows the default.
    const listed = listedVariables(text);
    return [
      ...[...declared]
        .filter(([name]) => !listed.has(name))
        .map(([name, place]) => `.env.example lacks ${name} (${place})`),
      ...[...listed]
        .filter((name) => !declared.has(name))
        .map((name) => `.env.example names ${name}, which no config.ts declares`),
    ];
  },
  plants: [
    {
      files: {
        'apps/autoscaler/src/config.ts': 'export const spec = { MAX_WORKERS: num({ default: 3 }), limit: num() };\n',
      },
      expects: '.env.example lacks MAX_WORKERS (apps/autoscaler/src/config.ts:1)',
    },
    { files: { '.env.example': 'DATABASE_URL=\nCONTENT_CORE_PORT=3000\n# OLD_NAME=1\n' }, expects: 'names OLD_NAME' },
  ],
};

/** Every variable that a config file declares as `NAME: validator(…)`, with its place. @returns {Map<string, string>} */
export function declaredVariables(tree) {
  const found = new Map();
  const isSpec = (node) =>
    ts.isPropertyAssignment(node) &&
    /^[A-Z][A-Z0-9_]*$/.test(node.name.text ?? '') &&
    ts.isCallExpression(node.initializer);
  for (const file of tree.sources.filter((source) => isConfigFile(source) && !source.endsWith('.spec.ts'))) {
    for (const node of tree.nodes(file, isSpec)) found.set(node.name.text, tree.place(file, node));
  }
  return found;
}

/** @param {string} text of a `.env` file @returns {Set<string>} */
export function listedVariables(text) {
  return new Set([...text.matchAll(/^(?:#\s?)?([A-Z][A-Z0-9_]*)=/gm)].map(([, name]) => name));
}
