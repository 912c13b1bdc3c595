import type { NewEvent } from '@atomo-cc/events';
import { append } from '@atomo-cc/event-store';
import { type TenantId, uuidv7 } from '@atomo-cc/kernel';
import type { Tx } from '@atomo-cc/platform/postgres';
import type { Origin } from './principal.js';

/** The actor of what somebody did who could not say who they are. */
export const NOBODY = 'nobody';

/** Writes to the log what happened to somebody who may come in, in the transaction in which it happened. */
export async function recordAccess(
  tx: Tx,
  tenant: TenantId,
  stream: string,
  event: NewEvent,
  by: Origin & { readonly actor: string },
): Promise<void> {
  const requestId = by.requestId ?? uuidv7();
  await append(tx, tenant, [
    {
      stream,
      expected: 'any',
      events: [event],
      metadata: {
        actor: by.actor,
        correlationId: requestId,
        causationId: requestId,
        ...(by.address !== undefined && { address: by.address }),
      },
    },
  ]);
}
