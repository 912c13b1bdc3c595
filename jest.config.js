import preset from './jest.preset.js';

const project = (displayName, more) => ({ ...preset, displayName, rootDir: import.meta.dirname, ...more });

export default {
  // A limit for a busy machine, not for a promise: the tests of what is promised measure it themselves.
  testTimeout: 60_000,
  // What spec files leave behind adds up; beyond this a worker is replaced, which takes a second, before collecting it takes longer.
  workerIdleMemoryLimit: '800MB',
  projects: [
    project('unit', {
      testMatch: ['<rootDir>/{apps,libs,tools}/**/*.spec.ts'],
      testPathIgnorePatterns: ['/node_modules/', '\\.int\\.spec\\.ts$', '/apps/e2e/'],
    }),
    project('int', {
      testMatch: ['<rootDir>/{apps,libs,tools}/**/*.int.spec.ts'],
      testPathIgnorePatterns: ['/node_modules/', '/apps/e2e/'],
      globalSetup: '<rootDir>/tools/local/dist/jest-setup.js',
      globalTeardown: '<rootDir>/tools/local/dist/jest-teardown.js',
    }),
    project('e2e', {
      testMatch: ['<rootDir>/apps/e2e/src/**/*.spec.ts'],
      globalSetup: '<rootDir>/apps/e2e/dist/the-system.js',
      globalTeardown: '<rootDir>/apps/e2e/dist/stop-the-system.js',
    }),
  ],
};
