import type { TestServers } from './throw-away.js';

// Jest may load set-up and teardown as two instances of this module; the global object is the one place both see.
const KEY = Symbol.for('atomo.testServers');
const shared = globalThis as { [KEY]?: TestServers };

/** Hands the servers of the set-up to the teardown. */
export function keepForTeardown(servers: TestServers): void {
  shared[KEY] = servers;
}

/** Jest's global teardown of the project `int`: ends what the set-up started. */
export default async function tearDown(): Promise<void> {
  await shared[KEY]?.stop();
}
