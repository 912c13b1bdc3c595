import type { TenantId } from '@atomo-cc/kernel';
import type { Tx } from '@atomo-cc/platform/postgres';
import { nodeId } from './ids.js';
import type { Recipient, SourceMessage } from './message.js';

/** A person as mail knows them by one address. */
export interface KnownPerson {
  /** The graph's node. */
  readonly id: string;
  readonly address: string;
  readonly name: string;
}

/** A message that somebody sent or got, as it is kept. */
export interface KeptMessage {
  readonly id: string;
  readonly source: string;
  readonly messageId: string;
  readonly inReplyTo: string | null;
  readonly sentAt: Date;
  readonly from: { readonly address: string; readonly name: string | null };
  readonly recipients: readonly Recipient[];
  readonly subject: string;
  readonly text: string;
  /** Only the beginning of the text is kept. */
  readonly truncated: boolean;
  readonly attachments: SourceMessage['attachments'];
}

/** Who is known of the transaction's tenant by these addresses, which are in lower case. */
export function peopleBy(tx: Tx, tenant: TenantId, addresses: readonly string[]): Promise<KnownPerson[]> {
  return tx.query<KnownPerson>(
    `select id, key as address, name from graph_nodes where tenant_id = $1 and id = any($2::uuid[]) order by key`,
    [tenant, addresses.map((address) => nodeId(tenant, 'person', address))],
  );
}

/** The messages that one of these addresses sent or got, by their ids from behind `after` on. The tenant's are looked through. */
export function messagesOf(
  tx: Tx,
  tenant: TenantId,
  addresses: readonly string[],
  page: { readonly after: string | null; readonly limit: number },
): Promise<KeptMessage[]> {
  return tx.query<KeptMessage>(
    `select id, source, message_id as "messageId", in_reply_to as "inReplyTo", sent_at as "sentAt",
            json_build_object('address', author_address, 'name', author_name) as "from", recipients, subject, text, truncated, attachments
     from memory_records r
     where tenant_id = $1 and ($3::uuid is null or id > $3) and (author_address = any($2::text[])
       or exists (select from jsonb_array_elements(r.recipients) where value ->> 'address' = any($2::text[])))
     order by id limit $4`,
    [tenant, addresses, page.after, page.limit],
  );
}
