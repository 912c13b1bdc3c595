/** Jest's global teardown: stops the Atomo of the e2e specs as Ctrl-C does. */
export default async function tearDown(): Promise<void> {
  await (globalThis as { stopAtomo?: () => Promise<void> }).stopAtomo?.();
}
