// The boundaries of the house as rules for dependency-cruiser (ARCHITECTURE.md draws them).
//
// Layers are read from the tag `type:…` in each package.json, so a new package is held to its layer without an edit here.
// Packages are read from the working directory: `tools/checks/boundaries.mjs` runs this file over the repository and over
// a throw-away tree with one planted violation per rule, which proves that every rule can fail.
const fs = require('node:fs');
const path = require('node:path');

/** What each layer may import, besides itself. Layers do not skip upwards, and equals do not meet (but contracts and SDKs). */
const MAY_IMPORT = {
  app: ['feature', 'engine', 'platform', 'contract', 'util'],
  feature: ['engine', 'platform', 'contract', 'util'],
  engine: ['platform', 'contract', 'util'],
  platform: ['contract', 'util'],
  contract: ['contract', 'util'],
  util: [],
  sdk: ['sdk', 'contract', 'util'],
  testing: ['platform', 'contract', 'util'],
  service: [], // held by `service-imports-schema-only`
  tool: ['feature', 'engine', 'platform', 'contract', 'util', 'sdk', 'testing'],
  e2e: ['sdk', 'contract', 'util', 'testing'],
};

/** Specs, conformance suites, `testing/` rooms and whole packages that only tests run. */
const TEST_SUFFIXES = ['\\.spec\\.ts$', '\\.conformance\\.ts$'];
const TEST_CODE = [...TEST_SUFFIXES, '/testing/', '^apps/e2e/'];

/** Framework and drivers: a contract that imports one drags it into every client and SDK. */
const INFRASTRUCTURE =
  '(?:^|/)node_modules/(?:@types/)?(?:@nestjs|@lancedb|@fastify|@socket\\.io|typeorm|pg|ioredis|bullmq|fastify|socket\\.io|mailparser|pino)/';

const escape = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');

/** A pattern group of folders that matches nothing when there are none. */
const anyOf = (folders) => `(${folders.map(escape).join('|') || '\\b\\B'})`;

/** Every folder that must be a package; `type` is undefined when package.json or its tag is missing or unknown. */
function readPackages() {
  const found = [];
  for (const room of ['apps', 'libs', 'services', 'tools']) {
    for (const entry of fs.existsSync(room) ? fs.readdirSync(room, { withFileTypes: true }) : []) {
      if (!entry.isDirectory()) continue;
      const folder = `${room}/${entry.name}`;
      const manifest = path.join(folder, 'package.json');
      if (fs.existsSync(manifest)) {
        const { nx, name } = JSON.parse(fs.readFileSync(manifest, 'utf8'));
        const types = (nx?.tags ?? []).filter((tag) => tag.startsWith('type:')).map((tag) => tag.slice('type:'.length));
        found.push({ folder, name, type: types.length === 1 && types[0] in MAY_IMPORT ? types[0] : undefined });
      } else if (room === 'tools') {
        found.push({ folder, type: 'tool' }); // plain scripts of the repository itself
      } else if (holdsSource(folder)) {
        found.push({ folder, type: undefined });
      }
    }
  }
  return found;
}

/** Whether a folder holds TypeScript; left-overs such as an empty `dist/` are no package. */
function holdsSource(folder) {
  return fs
    .readdirSync(folder, { recursive: true })
    .some((file) => file.endsWith('.ts') && !/(^|\/)(dist|node_modules)\//.test(file));
}

const packages = readPackages();
const foldersOf = (...types) => packages.filter((pkg) => types.includes(pkg.type)).map((pkg) => pkg.folder);
const everyFolder = packages.map((pkg) => pkg.folder);

/** For one layer two rules: product code, and test code which may use `libs/testing` besides. */
function layerRules([type, allowed]) {
  const from = foldersOf(type);
  if (from.length === 0) return [];
  const comment = `type:${type} may import: ${allowed.join(', ') || 'no other package'}.`;
  const rule = (name, more, extra) => ({
    name,
    severity: 'error',
    comment,
    from: { path: `^${anyOf(from)}/`, ...more },
    to: {
      path: `^${anyOf(everyFolder)}/`,
      pathNot: ['^$1/', `^${anyOf(foldersOf(...allowed, ...extra))}/`],
    },
  });
  if (type === 'testing' || type === 'e2e') return [rule(`layer-${type}`, {}, [])];
  const testCode = [...TEST_SUFFIXES, '/testing/'].map((pattern) => `^${anyOf(from)}/.*${pattern}`);
  // A server is tested with the client that is made for it.
  const forTests = type === 'app' ? ['testing', 'sdk'] : ['testing'];
  return [
    rule(`layer-${type}`, { pathNot: TEST_CODE }, []),
    {
      ...rule(`layer-${type}-tests`, { path: testCode }, forTests),
      comment: `${comment} Its tests may import besides: ${forTests.join(', ')}.`,
    },
  ];
}

module.exports = {
  forbidden: [
    ...Object.entries(MAY_IMPORT)
      .filter(([type]) => type !== 'service')
      .flatMap(layerRules),
    {
      name: 'service-imports-schema-only',
      severity: 'error',
      comment: 'A service is what a user writes: declarations in the schema DSL and nothing else.',
      from: { path: `^${anyOf(foldersOf('service'))}/`, pathNot: TEST_CODE },
      to: { pathNot: ['^$1/', '^libs/schema/src/index\\.ts$'] },
    },
    {
      name: 'untagged-package',
      severity: 'error',
      comment: 'Give the package one tag {"nx": {"tags": ["type:…"]}} of a known layer in its package.json.',
      from: { path: `^${anyOf(packages.filter((pkg) => !pkg.type).map((pkg) => pkg.folder))}/` },
      to: {},
    },
    {
      name: 'no-cycles',
      severity: 'error',
      comment:
        'Two files that need each other are one noun, or lack a third. Loops of `import type` alone are allowed.',
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    {
      name: 'no-relative-import-across-packages',
      severity: 'error',
      comment: 'Import another package by its name, so that its exports and the layers hold.',
      from: { path: `^${anyOf(everyFolder)}/` },
      to: {
        path: `^${anyOf(everyFolder)}/`,
        pathNot: '^$1/',
        dependencyTypes: ['local'],
        dependencyTypesNot: ['aliased'], // a package's name that leads into the workspace
      },
    },
    {
      name: 'no-import-past-exports',
      severity: 'error',
      comment: 'A package is entered only by what its package.json exports.',
      from: {},
      to: { couldNotResolve: true, path: '^@atomo-cc/' },
    },
    {
      name: 'not-resolvable',
      severity: 'error',
      comment: 'The module is not there: a typing error, or a package that is not installed.',
      // Peers to compare with are installed there only, by who measures.
      from: { pathNot: '^tools/bench/' },
      to: { couldNotResolve: true, pathNot: '^@atomo-cc/' },
    },
    ...['^(apps/[^/]+/src|libs/platform/src)/([^/]+)/', '^(apps/[^/]+/src)/[^/]+$'].map((from) => ({
      name: 'feature-front-door',
      severity: 'error',
      comment:
        'Another feature of an app, or room of platform, is entered by its index.ts, or that of a folder in it (connectors/mbox).',
      from: { path: from },
      to: { path: '^$1/[^/]+/', pathNot: ['^$1/$2/', '^$1/[^/]+/index\\.ts$', '^$1/[^/]+/[^/]+/index\\.ts$'] },
    })),
    // One rule per depth: dependency-cruiser refuses patterns that nest quantifiers.
    ...['', '/([^/]+)', '/([^/]+)/([^/]+)'].map((folders, depth) => ({
      name: 'no-import-of-own-index',
      severity: 'error',
      comment: 'Insiders import files directly; going through the own front door is how barrels make cycles.',
      from: { path: `^((?:apps|libs)/[^/]+/src)${folders}/[^/]+$`, pathNot: TEST_CODE },
      to: { path: ['^$1/index\\.ts$', '^$1/$2/index\\.ts$', '^$1/$2/$3/index\\.ts$'].slice(0, depth + 1) },
    })),
    {
      name: 'no-test-code-in-product',
      severity: 'error',
      comment: 'Only specs, testing/ rooms, apps/e2e and tools import test code.',
      from: { pathNot: [...TEST_CODE, '^libs/testing/', '^tools/', `^${anyOf(foldersOf('testing'))}/`] },
      to: { path: [...TEST_CODE, '^libs/testing/', `^${anyOf(foldersOf('testing'))}/`] },
    },
    {
      name: 'undeclared-package',
      severity: 'error',
      comment:
        "Declare it in the package's own package.json: what is found only by luck of hoisting breaks in the image. " +
        'Own packages, which dependency-cruiser cannot tell, are held by tools/checks/packages.mjs.',
      from: { path: `^${anyOf(everyFolder)}/`, pathNot: TEST_CODE },
      to: { dependencyTypes: ['npm-no-pkg', 'npm-unknown'] },
    },
    {
      name: 'util-needs-no-package',
      severity: 'error',
      comment: 'kernel has no dependency, so that everything may depend on it.',
      from: { path: `^${anyOf(foldersOf('util'))}/`, pathNot: TEST_CODE },
      to: { path: '(?:^|/)node_modules/' },
    },
    {
      name: 'contract-knows-no-infrastructure',
      severity: 'error',
      comment: 'A contract is read by clients and SDKs: no framework, driver or queue.',
      from: { path: `^${anyOf(foldersOf('contract', 'sdk'))}/`, pathNot: TEST_CODE },
      to: { path: INFRASTRUCTURE },
    },
  ],
  options: {
    // Only our own: npm packages are often entered in their dist/, and excluding them would hide the import.
    exclude: { path: '^(?:apps|libs|services|tools)/.*/(?:dist|coverage|fixtures)/' },
    doNotFollow: { path: '(?:^|/)node_modules/' },
    // Type-only imports are imports too: a contract that names a driver's type needs the driver to compile.
    tsPreCompilationDeps: true,
    combinedDependencies: false,
    enhancedResolveOptions: {
      // The workspace condition leads to src/*.ts, so no build is needed; `import` and `types` serve npm packages.
      conditionNames: ['@atomo-cc/source', 'import', 'require', 'node', 'default', 'types'],
      exportsFields: ['exports'],
      extensions: ['.ts', '.mts', '.js', '.mjs', '.cjs', '.json', '.d.ts'],
    },
  },
};
