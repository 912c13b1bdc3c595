import type { TenantId } from '@atomo-cc/kernel';
import type { Tx } from '@atomo-cc/platform/postgres';
import { nodeId } from './ids.js';
import type { MessageAddress, SourceMessage } from './message.js';

/** What stands in the place of what was taken out. */
export const FORGOTTEN_WORDS = '[erased]';

/** Until when the addresses of forgotten people are passed over, by the ids of their nodes. */
export type ForgottenUntil = ReadonlyMap<string, Date>;

/** Who of the tenant is forgotten. */
export async function readForgotten(tx: Tx, tenant: TenantId): Promise<ForgottenUntil> {
  const rows = await tx.query<{ person: string; until: Date }>(
    'select person, until from memory_forgotten where tenant_id = $1',
    [tenant],
  );
  return new Map(rows.map(({ person, until }) => [person, until]));
}

/** A message as it may come in: null of what a forgotten person wrote before they were forgotten; of others' without their addresses. */
export function withoutForgotten(
  tenant: TenantId,
  message: SourceMessage,
  forgotten: ForgottenUntil,
): SourceMessage | null {
  if (forgotten.size === 0) return message;
  const isForgotten = (address: string) => {
    const until = forgotten.get(nodeId(tenant, 'person', address.toLowerCase()));
    return until !== undefined && message.sentAt <= until;
  };
  if (isForgotten(message.from.address)) return null;
  const kept = (all: readonly MessageAddress[]) => all.filter(({ address }) => !isForgotten(address));
  const text = (given: string) =>
    given.replaceAll(/[\p{L}\p{N}._%+-]+@[\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)+/gu, (found) =>
      isForgotten(found) ? FORGOTTEN_WORDS : found,
    );
  return {
    ...message,
    to: kept(message.to),
    cc: kept(message.cc),
    listAddress: message.listAddress !== null && isForgotten(message.listAddress) ? null : message.listAddress,
    subject: text(message.subject),
    text: text(message.text),
  };
}
