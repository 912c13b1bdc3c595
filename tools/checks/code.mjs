// What product code may not do: each rule here is read off the syntax tree of one file.
import ts from 'typescript';
import { isTestCode } from './tree.mjs';

/** More dependencies than this mean that a noun is missing; admired code bases have two or three. */
const MAX_CONSTRUCTOR_DEPENDENCIES = 6;

/** @type {import('./run.mjs').Check} */
export const environment = {
  name: 'environment',
  promise: 'only config.ts files read process.env (tools, specs and libs/testing aside)',
  find(tree) {
    return tree.productSources
      .filter((file) => !isConfigFile(file))
      .flatMap((file) => tree.nodes(file, isProcessEnv).map((node) => tree.place(file, node)))
      .map(
        (place) => `${place} reads process.env: declare the variable in config.ts and take the value as a parameter`,
      );
  },
  plants: [
    { files: { 'libs/access/src/a.ts': 'export const a = process.env.A;\n' }, expects: 'libs/access/src/a.ts:1' },
    { files: { 'libs/access/src/b.ts': "export const b = process['env'];\n" }, expects: 'libs/access/src/b.ts:1' },
    {
      files: { 'libs/access/src/c.ts': 'const { env } = process;\nexport const c = env;\n' },
      expects: 'libs/access/src/c.ts:1',
    },
    {
      files: { 'libs/access/src/d.ts': "import { env } from 'node:process';\nexport const d = env;\n" },
      expects: 'libs/access/src/d.ts:1',
    },
  ],
};

/** Files that may read the environment; they declare every variable they read (see `variables.mjs`). */
export function isConfigFile(file) {
  return /(^|\/)config\.ts$/.test(file) || file.startsWith('libs/platform/src/config/');
}

function isProcessEnv(node) {
  const isProcess = (expression) => ts.isIdentifier(expression) && expression.text === 'process';
  if (ts.isPropertyAccessExpression(node)) return node.name.text === 'env' && isProcess(node.expression);
  if (ts.isElementAccessExpression(node)) {
    return (
      isProcess(node.expression) &&
      ts.isStringLiteral(node.argumentExpression) &&
      node.argumentExpression.text === 'env'
    );
  }
  if (ts.isBindingElement(node)) {
    const owner = node.parent.parent;
    const key = node.propertyName ?? node.name;
    return ts.isIdentifier(key) && key.text === 'env' && !!owner.initializer && isProcess(owner.initializer);
  }
  if (ts.isImportSpecifier(node)) {
    const from = node.parent.parent.parent.moduleSpecifier.text;
    return (node.propertyName ?? node.name).text === 'env' && /^(node:)?process$/.test(from);
  }
  return false;
}

/** @type {import('./run.mjs').Check} */
export const constructors = {
  name: 'constructors',
  promise: `no class takes more than ${MAX_CONSTRUCTOR_DEPENDENCIES} constructor dependencies`,
  find(tree) {
    return tree.productSources.flatMap((file) =>
      tree
        .nodes(file, ts.isClassDeclaration)
        .map((node) => ({ node, count: dependenciesOf(node) }))
        .filter(({ count }) => count > MAX_CONSTRUCTOR_DEPENDENCIES)
        .map(({ node, count }) => {
          return `${tree.place(file, node)} ${node.name?.text} has ${count} dependencies: look for the missing noun`;
        }),
    );
  },
  plants: [
    {
      files: {
        'libs/access/src/wide.ts':
          'export class Wide {\n  constructor(a: 1, b: 1, c: 1, d: 1, e: 1, f: 1, g: 1) {}\n}\n' +
          'export class Sly {\n  @Inject() a: 1;\n  @Inject() b: 1;\n  constructor(c: 1, d: 1, e: 1, f: 1, g: 1) {}\n}\n',
      },
      expects: 'Wide has 7',
    },
    { files: {}, expects: 'Sly has 7' },
  ],
};

/** Constructor parameters and properties that Nest injects. */
function dependenciesOf(node) {
  const parameters = node.members.find(ts.isConstructorDeclaration)?.parameters.length ?? 0;
  const isInjected = (member) =>
    ts.isPropertyDeclaration(member) && decoratorNames(member).some((name) => name.startsWith('Inject'));
  return parameters + node.members.filter(isInjected).length;
}

/** @type {import('./run.mjs').Check} */
export const wiring = {
  name: 'wiring',
  promise: 'no forwardRef; global modules only in platform',
  find(tree) {
    return tree.productSources.flatMap((file) => [
      ...tree
        .nodes(file, (node) => ts.isIdentifier(node) && node.text === 'forwardRef')
        .map(
          (node) =>
            `${tree.place(file, node)} uses forwardRef: turn one of the two needs round, or put an event between`,
        ),
      ...(file.startsWith('libs/platform/') ? [] : tree.nodes(file, isGlobalModule)).map(
        (node) =>
          `${tree.place(file, node)} makes a module global: only platform may, import the module where it is used`,
      ),
    ]);
  },
  plants: [
    {
      files: { 'libs/access/src/knot.ts': "import { forwardRef } from 'pg';\nexport const knot = forwardRef;\n" },
      expects: 'libs/access/src/knot.ts:1 uses forwardRef',
    },
    {
      files: { 'libs/access/src/everywhere.ts': '@Global()\nexport class Everywhere {}\n' },
      expects: 'libs/access/src/everywhere.ts:1 makes a module global',
    },
    {
      files: { 'libs/access/src/dynamic.ts': 'export const d = { module: Object, global: true };\n' },
      expects: 'libs/access/src/dynamic.ts:1 makes a module global',
    },
  ],
};

function isGlobalModule(node) {
  if (ts.isDecorator(node)) return decoratorName(node) === 'Global';
  if (!ts.isObjectLiteralExpression(node)) return false;
  const has = (name, kind) =>
    node.properties.some(
      (property) =>
        property.name?.text === name &&
        (!kind || (ts.isPropertyAssignment(property) && property.initializer.kind === kind)),
    );
  return has('module') && has('global', ts.SyntaxKind.TrueKeyword);
}

const decoratorName = ({ expression }) => (ts.isCallExpression(expression) ? expression.expression : expression).text;
const decoratorNames = (node) => (ts.getDecorators(node) ?? []).map(decoratorName);

/** Words that say where code was put, not what it does: never, not even as part of a name. */
const EMPTY_WORDS = ['util', 'utils', 'utility', 'utilities', 'helper', 'helpers', 'manager'];
/** Names of heaps and of kinds; as part of a name ("shared-state", "base-url") such a word may say something. */
const HEAP_NAMES = [
  'common',
  'shared',
  'misc',
  'base',
  'type',
  'types',
  'constants',
  'interfaces',
  'enums',
  'dto',
  'dtos',
];

/** @type {import('./run.mjs').Check} */
export const names = {
  name: 'names',
  promise: 'files, folders and classes say the thing: no utils, helpers, managers, types.ts, dtos/, IThing',
  find(tree) {
    const faults = [];
    for (const file of tree.sources) {
      for (const part of file.split('/').slice(1)) {
        const stem = part.replace(/(\.(spec|int|conformance))*\.m?ts$/, '');
        const word = stem.split(/[.-]/).find((each) => EMPTY_WORDS.includes(each));
        const heap = stem.split('.').find((each) => HEAP_NAMES.includes(each));
        if (word ?? heap) faults.push(`${file}: "${word ?? heap}" does not say the thing`);
      }
      const declared = tree.nodes(file, (node) => ts.isClassDeclaration(node) || ts.isInterfaceDeclaration(node));
      for (const node of declared) {
        const name = node.name?.text ?? '';
        const isEmpty =
          /(Manager|Helpers?|Utils?)$|^Base[A-Z]/.test(name) ||
          (ts.isInterfaceDeclaration(node) && /^I[A-Z][a-z]/.test(name));
        if (isEmpty) faults.push(`${tree.place(file, node)} ${name}: name the thing itself`);
      }
    }
    return faults;
  },
  plants: [
    { files: { 'libs/access/src/string-utils.ts': 'export {};\n' }, expects: '"utils"' },
    { files: { 'libs/access/src/types.ts': 'export {};\n' }, expects: 'libs/access/src/types.ts: "types"' },
    { files: { 'libs/access/src/base.service.ts': 'export {};\n' }, expects: '"base"' },
    { files: { 'libs/access/src/dtos/login.ts': 'export {};\n' }, expects: '"dtos"' },
    {
      files: { 'libs/access/src/a.ts': 'export class JobManager {}\nexport interface ISession {}\n' },
      expects: 'JobManager',
    },
    { files: {}, expects: 'ISession' },
  ],
};

/** @type {import('./run.mjs').Check} */
export const frontDoors = {
  name: 'front-doors',
  promise: 'an index.ts names what it exports: no `export *`',
  find(tree) {
    const isStar = (node) =>
      ts.isExportDeclaration(node) && (!node.exportClause || ts.isNamespaceExport(node.exportClause));
    return tree.sources
      .filter((file) => !isTestCode(file))
      .flatMap((file) =>
        tree.nodes(file, isStar).map((node) => `${tree.place(file, node)} exports *: name what is meant to be used`),
      );
  },
  plants: [
    { files: { 'libs/access/src/index.ts': "export * from './login.js';\n" }, expects: 'libs/access/src/index.ts:1' },
  ],
};
