import os from 'node:os';
import type { By } from '@atomo-cc/access';

/** Who has typed a command, for its events; a container may run under a number that has no name. */
export function operator(reason: string | undefined): By {
  return { actor: `operator:${userName()}`, ...(reason !== undefined && { reason }) };
}

function userName(): string {
  try {
    return os.userInfo().username;
  } catch {
    return String(process.getuid?.() ?? 'unknown');
  }
}
