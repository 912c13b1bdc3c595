/** A name and address as a message's header gives them; the address is in lower case. */
export interface MessageAddress {
  readonly address: string;
  readonly name: string | null;
}

/** A message as a connector hands it over: strings are storable in Postgres, ids stand without angle brackets. */
export interface SourceMessage {
  readonly messageId: string;
  readonly inReplyTo: string | null;
  /** Oldest first. */
  readonly references: readonly string[];
  readonly from: MessageAddress;
  readonly to: readonly MessageAddress[];
  readonly cc: readonly MessageAddress[];
  /** The address of the mailing list that carried it; a list is not a person. */
  readonly listAddress: string | null;
  readonly subject: string;
  readonly sentAt: Date;
  readonly text: string;
  readonly truncated: boolean;
  readonly attachments: readonly {
    readonly filename: string | null;
    readonly contentType: string;
    readonly size: number;
  }[];
  /** Of the raw message: the same hash means that nothing changed. */
  readonly contentHash: string;
}

/** How a message addressed somebody. */
export type RecipientRole = 'to' | 'cc' | 'list';

/** One recipient as the record keeps it. */
export interface Recipient {
  readonly address: string;
  readonly name: string | null;
  readonly role: RecipientRole;
}

/**
 * The recipients of a message, each address once: as the list where it is the list's own, else as `to` before `cc`.
 * The list is a recipient even where no header but List-Id names it.
 */
export function recipientsOf(message: SourceMessage): Recipient[] {
  const byAddress = new Map<string, Recipient>();
  const put = ({ address, name }: MessageAddress, role: RecipientRole) => {
    const known = byAddress.get(address);
    if (address === '') return;
    if (!known) byAddress.set(address, { address, name, role: address === message.listAddress ? 'list' : role });
    else if (known.name === null && name !== null) byAddress.set(address, { ...known, name });
  };
  for (const to of message.to) put(to, 'to');
  for (const cc of message.cc) put(cc, 'cc');
  if (message.listAddress !== null) put({ address: message.listAddress, name: null }, 'list');
  return [...byAddress.values()];
}
