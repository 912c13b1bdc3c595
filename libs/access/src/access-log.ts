import type { NewEvent } from '@atomo-cc/events';
import { append, type EventCodec } from '@atomo-cc/event-store';
import { apiError, type TenantId, uuidv7 } from '@atomo-cc/kernel';
import type { Tx } from '@atomo-cc/platform/postgres';
import type { Origin } from './principal.js';

/** The actor of what somebody did who could not say who they are. */
export const NOBODY = 'nobody';
/** Of the sentence that says why. */
const LONGEST_REASON = 500;

/** Who did it, from where, and why in their own words where they were asked. */
export interface By extends Origin {
  /** As in events: `user:<id>`, `operator:<login name>`. */
  readonly actor: string;
  readonly reason?: string;
}

/**
 * Writes to the log what happened to somebody who may come in, in the transaction in which it happened.
 * @param codec seals what events say about a person; they must say nothing of the kind without one
 */
export async function recordAccess(
  tx: Tx,
  tenant: TenantId,
  stream: string,
  event: NewEvent | readonly NewEvent[],
  by: By,
  codec: EventCodec | null = null,
): Promise<void> {
  const requestId = by.requestId ?? uuidv7();
  const { actor, address, reason } = by;
  const metadata = {
    actor,
    correlationId: requestId,
    causationId: requestId,
    ...(address !== undefined && { address }),
    ...(reason !== undefined && { reason }),
  };
  const appends = [{ stream, expected: 'any', events: 'type' in event ? [event] : event, metadata }] as const;
  await append(tx, tenant, codec ? await codec.encode(tx, tenant, appends) : appends);
}

/** A text that people read, without the spaces around it. @throws CodedError VALIDATION_ERROR */
export function checkText(field: string, text: string, longest: number): string {
  const said = text.trim();
  if (said !== '' && said.length <= longest && !/\p{C}/u.test(said)) return said;
  throw apiError('VALIDATION_ERROR', `The ${field} has 1 to ${longest} characters, and no control characters.`, {
    field,
  });
}

/** Who did it, with a reason that may stand in the log. @throws CodedError VALIDATION_ERROR */
export function checkBy(by: By): By {
  return by.reason === undefined ? by : { ...by, reason: checkText('reason', by.reason, LONGEST_REASON) };
}
