import { accessEvent, type AccessEventKind, accessStream } from '@atomo-cc/events';
import { DEFAULT_TENANT_ID, type TenantId } from '@atomo-cc/kernel';
import type { SystemDatabase, Tx } from '@atomo-cc/platform/postgres';
import { NOBODY, recordAccess } from './access-log.js';
import type { Origin, Principal } from './principal.js';
import { normalEmail } from './users.js';

/** Refusals of one kind to the same one are told once, and then at most once within this time, with how many there were. */
export const COALESCED_MS = 60_000;
/** Kinds and ones that a process keeps apart at a time; what comes beyond is told in one event. So no attack writes more events than twice this many in a minute. */
const MOST_KEPT_APART = 256;
/** Addresses that are counted of one entry; from here on it says this many. */
const MOST_ADDRESSES = 100;
/** Of an operation's name, which may be the caller's own. */
const LONGEST_OPERATION = 100;

/** Who was refused something: a caller, or a key of a store. */
type Refused = Pick<Principal, 'tenantId' | 'actor'>;

/** Whom a refusal is about: the account that somebody wanted to be, known or not, or a caller. */
type About = { readonly email: string } | { readonly principal: Refused } | 'others';

interface Entry {
  readonly about: About;
  readonly kind: Extract<AccessEventKind, 'loginRefused' | 'denied'>;
  readonly what: Readonly<Record<string, unknown>>;
  /** Of the newest refusal. */
  from: Origin;
  count: number;
  addresses: Set<string>;
  /** Nothing has come since the last look. */
  isQuiet: boolean;
}

/**
 * Tells the log of refused logins and forbidden requests, behind the answer and coalesced: an attacker decides how many there
 * are, and must neither fill the log nor learn from the time of an answer whether an account exists. A process that is killed
 * takes at most a minute's count with it.
 */
export class Refusals {
  private readonly entries = new Map<string, Entry>();
  private readonly timer: NodeJS.Timeout;
  private writing: Promise<void> = Promise.resolve();

  constructor(
    private readonly system: SystemDatabase,
    private readonly options: {
      readonly onAppended?: ((tenant: TenantId) => void) | undefined;
      /** Told why events could not be written; they are tried again within a minute. */
      readonly onError?: ((error: unknown) => void) | undefined;
    },
  ) {
    this.timer = setInterval(() => void this.flush(), COALESCED_MS).unref();
  }

  /** A login was refused: `wrong` by its password, `limited` by a brake, `shut` since the user or the tenant is shut out. */
  loginRefused(email: string, reason: 'wrong' | 'limited' | 'shut', from: Origin): void {
    const account = normalEmail(email);
    this.note(
      `login ${reason} ${account}`,
      { about: { email: account }, kind: 'loginRefused', what: { reason } },
      from,
    );
  }

  /**
   * A request was forbidden.
   * @param principal null for one who could not say who they are: the operator's affair
   * @param operation what was asked for: a method and route, or the name of a field or an event
   */
  denied(principal: Refused | null, operation: string, from: Origin): void {
    const what = { operation: operation.slice(0, LONGEST_OPERATION) };
    const about = principal ? { principal } : 'others';
    this.note(`denied ${principal?.actor ?? NOBODY} ${what.operation}`, { about, kind: 'denied', what }, from);
  }

  /** Writes what was counted so far. */
  flush(): Promise<void> {
    const waiting = [...this.entries];
    this.writing = this.writing.then(async () => {
      for (const [key, entry] of waiting) {
        if (entry.count > 0) await this.write(entry);
        // After a whole while the next one is told at once again.
        else if (entry.isQuiet) this.entries.delete(key);
        else entry.isQuiet = true;
      }
    });
    return this.writing;
  }

  /** Writes what was counted, and counts no more in the background. */
  async close(): Promise<void> {
    clearInterval(this.timer);
    await this.flush();
  }

  private note(key: string, of: Pick<Entry, 'about' | 'kind' | 'what'>, from: Origin): void {
    let entry = this.entries.get(key);
    if (!entry && this.entries.size >= MOST_KEPT_APART) {
      key = `${of.kind} others`;
      of = {
        about: 'others',
        kind: of.kind,
        what: of.kind === 'denied' ? { operation: 'others' } : { reason: 'others' },
      };
      entry = this.entries.get(key);
    }
    const isFirst = entry === undefined;
    entry ??= { ...of, from, count: 0, addresses: new Set(), isQuiet: false };
    entry.isQuiet = false;
    entry.count += 1;
    entry.from = from;
    if (from.address !== undefined && entry.addresses.size < MOST_ADDRESSES) entry.addresses.add(from.address);
    this.entries.set(key, entry);
    const written = entry;
    if (isFirst) this.writing = this.writing.then(() => this.write(written));
  }

  private async write(entry: Entry): Promise<void> {
    const { count, addresses, from, what, kind } = entry;
    if (count === 0) return;
    entry.count = 0;
    entry.addresses = new Set();
    try {
      const tenant = await this.system.transaction(async (tx) => {
        const place = await placeOf(tx, entry.about);
        if (!place) return null;
        const { tenantId, stream, actor } = place;
        const event = accessEvent(kind, { ...what, count, addresses: addresses.size });
        await recordAccess(tx, tenantId, stream, event, { ...from, actor });
        return tenantId;
      });
      if (tenant) this.options.onAppended?.(tenant);
    } catch (error) {
      entry.count += count;
      for (const address of addresses) entry.addresses.add(address);
      this.options.onError?.(error);
    }
  }
}

interface Place {
  readonly tenantId: TenantId;
  readonly stream: string;
  readonly actor: string;
}

/**
 * Where an event belongs. Accounts that do not exist, and what is too much to keep apart, are the operator's affair: the first
 * tenant's. Nowhere when the tenant is being deleted, whose log goes with it: its row is locked, so that no deletion begins before
 * the event is committed.
 */
async function placeOf(tx: Tx, about: About): Promise<Place | null> {
  if (about !== 'others' && 'principal' in about) {
    const { tenantId, actor } = about.principal;
    const kept = await tx.query('select 1 from tenants where id = $1 and deleting_at is null for share', [tenantId]);
    return kept.length > 0 ? { tenantId, actor, stream: actor.replace(':', '-') } : null;
  }
  const [user] =
    about === 'others'
      ? []
      : await tx.query<{ id: string; tenant_id: TenantId }>(
          `select u.id, u.tenant_id from users u join tenants t on t.id = u.tenant_id
           where u.email = $1 and t.deleting_at is null for share of t`,
          [about.email],
        );
  return user
    ? { tenantId: user.tenant_id, actor: NOBODY, stream: accessStream('user', user.id) }
    : { tenantId: DEFAULT_TENANT_ID, actor: NOBODY, stream: accessStream('tenant', DEFAULT_TENANT_ID) };
}
