import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { removeSystem, startSystem, type RunFile, type RunningSystem } from './system.js';

let started: RunningSystem | undefined;

/** Jest's global set-up: one Atomo for all e2e specs. */
export default async function setUp(): Promise<void> {
  started = await startSystem();
  process.env['ATOMO_E2E_HOME'] = started.home;
  (globalThis as { stopAtomo?: () => Promise<void> }).stopAtomo = () => removeSystem(started!);
}

/** The Atomo that runs for these specs: its run.json, as it is now. */
export function theSystem(): RunFile {
  return JSON.parse(readFileSync(join(theHome(), 'run.json'), 'utf8')) as RunFile;
}

/** Its home. */
export function theHome(): string {
  const home = process.env['ATOMO_E2E_HOME'];
  if (!home) throw new Error('Atomo was not started: run the specs through jest project e2e');
  return home;
}
