// The one jest set-up; `jest.config.js` makes three projects of it: unit (x.spec.ts, pure), int (x.int.spec.ts, real
// Postgres and Redis) and e2e (apps/e2e, the composed system as a user starts it).
//
// Sources are TypeScript ESM; for tests swc turns them, and the few ESM-only packages, into CommonJS, which starts two to
// seven times faster than jest's native ESM mode. So a tested file may not use `import.meta` or top-level await.
// `import` must stay out of customExportConditions: a package's ESM build would then be loaded as CommonJS.
const ESM_ONLY =
  '@nestjs|file-type|strtok3|token-types|uint8array-extras|@tokenizer|@borewit|jose|graphql-request|canonicalize|chokidar|readdirp';

export default {
  testEnvironment: 'node',
  setupFiles: ['reflect-metadata'],
  moduleNameMapper: { '^(\\.{1,2}/.*)\\.js$': ['$1.js', '$1'] },
  modulePathIgnorePatterns: ['/dist/', '/\\.atomo/'],
  transformIgnorePatterns: [`/node_modules/(?!(${ESM_ONLY})/)`],
  testEnvironmentOptions: { customExportConditions: ['@atomo-cc/source', 'require', 'node'] },
  transform: {
    '^.+\\.(t|j)s$': [
      '@swc/jest',
      {
        jsc: {
          target: 'es2023',
          parser: { syntax: 'typescript', decorators: true },
          transform: { legacyDecorator: true, decoratorMetadata: true, useDefineForClassFields: false },
        },
        module: { type: 'commonjs' },
      },
    ],
  },
};
