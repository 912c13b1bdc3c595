import { randomBytes } from 'node:crypto';
import type { MigrationInterface, QueryRunner } from 'typeorm';
import { accessEvent, accessStream } from '@atomo-cc/events';
import { apiError, type Clock, isUuid, systemClock, type TenantId, uuidv7 } from '@atomo-cc/kernel';
import {
  APP_ROLE,
  type AppDatabase,
  runAll,
  SYSTEM_ROLE,
  type SystemDatabase,
  tenantTable,
  type Tx,
} from '@atomo-cc/platform/postgres';
import { type By, checkBy, recordAccess } from './access-log.js';
import { Beliefs } from './beliefs.js';
import { type Person, type Principal, type Scope, SCOPES } from './principal.js';
import { requireRoom } from './quotas.js';
import type { AccessOptions } from './sessions.js';
import { ofOpenTenant } from './tenants.js';
import { invalidAccessToken, secretHash } from './tokens.js';
import { ADMIN_ROLE } from './users.js';

/** What every token begins with, so that people, and programs that look for leaked secrets, know one when they see it. */
export const API_TOKEN_PREFIX = 'atomo_';
/** Random bytes of a token: 192 bits cannot be guessed, so one SHA-256 is the right way to store it. */
const SECRET_BYTES = 24;
/** Characters of a token that are kept readable, to tell tokens apart by: of the random ones six, which leave 156 bits. */
const SHOWN_CHARACTERS = API_TOKEN_PREFIX.length + 6;
const API_TOKEN = /^atomo_[\w-]{32}$/;
/** Tokens of a tenant that hold at a time, whatever its plan: one for each program, not one for each of its runs. */
const MOST_TOKENS = 500;
/** Of a name: it is read in a list. */
const LONGEST_NAME = 200;
/** `last_used_at` is true to this many seconds, so that a busy token does not rewrite its row with every request. */
const LAST_USED_SECONDS = 60;

/** A token for a machine as an Admin sees it; the token itself is known only to whoever it was made for. */
export interface ApiToken {
  readonly id: string;
  readonly name: string;
  /** The beginning of the token, to tell tokens apart by. */
  readonly prefix: string;
  /** It may do what this role may. */
  readonly role: string;
  /** And of that only this. */
  readonly scopes: readonly Scope[];
  readonly createdAt: Date;
  readonly expiresAt: Date | null;
  /** True to the minute. */
  readonly lastUsedAt: Date | null;
}

/** A token that is to be made. */
export interface NewApiToken {
  readonly name: string;
  readonly role: string;
  readonly scopes: readonly string[];
  /** Null lets it hold until it is revoked. */
  readonly expiresAt: Date | null;
}

/** The table of tokens. A revoked one keeps its row: the log names it as the actor. */
export class ApiTokens1700000240000 implements MigrationInterface {
  name = 'ApiTokens1700000240000';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table api_tokens (
         id uuid primary key,
         tenant_id uuid not null references tenants (id) on delete cascade,
         name text not null,
         token_hash text not null unique check (token_hash ~ '^[0-9a-f]{64}$'),
         prefix text not null,
         role text not null check (role <> ''),
         scopes text[] not null check (cardinality(scopes) > 0 and scopes <@ array['read', 'write']),
         created_at timestamptz not null default now(),
         expires_at timestamptz,
         last_used_at timestamptz,
         revoked_at timestamptz
       )`,
      `create index api_tokens_tenant on api_tokens (tenant_id, created_at)`,
      ...tenantTable('api_tokens', {
        app: 'select (id, tenant_id, name, prefix, role, scopes, created_at, expires_at, last_used_at, revoked_at)',
        system: 'select',
      }),
      `grant insert, update (revoked_at) on api_tokens to ${APP_ROLE}`,
      `grant update (last_used_at) on api_tokens to ${SYSTEM_ROLE}`,
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('drop table api_tokens');
  }
}

interface TokenRow {
  id: string;
  tenant_id: TenantId;
  name: string;
  prefix: string;
  role: string;
  scopes: Scope[];
  created_at: Date;
  expires_at: Date | null;
  last_used_at: Date | null;
}

const COLUMNS = 'id, tenant_id, name, prefix, role, scopes, created_at, expires_at, last_used_at';
const HOLDS = `revoked_at is null and (expires_at is null or expires_at > $1) and ${ofOpenTenant('api_tokens')}`;

function tokenOf(row: TokenRow): ApiToken {
  const { id, name, prefix, role, scopes } = row;
  return {
    id,
    name,
    prefix,
    role,
    scopes,
    createdAt: row.created_at,
    expiresAt: row.expires_at,
    lastUsedAt: row.last_used_at,
  };
}

interface Known {
  readonly principal: Principal;
  readonly expiresAt: number;
}

/** True for what may be a token of a machine; an access token of a person never is. */
export function isApiToken(token: string): boolean {
  return token.startsWith(API_TOKEN_PREFIX);
}

/** A token of the transaction's tenant, whether it holds or not; undefined when there is none of that id. */
export async function findApiToken(tx: Tx, id: string): Promise<ApiToken | undefined> {
  const [row] = await tx.query<TokenRow>(`select ${COLUMNS} from api_tokens where id = $1`, [id]);
  return row && tokenOf(row);
}

/** Makes, lists and revokes tokens for machines, and says who comes with one. One per process, because it remembers. */
export class ApiTokens {
  private readonly clock: Clock;
  private readonly known: Beliefs<Known | undefined>;

  constructor(
    private readonly system: SystemDatabase,
    private readonly options: AccessOptions,
  ) {
    this.clock = options.clock ?? systemClock;
    this.known = new Beliefs((hash, now) => this.lookUp(hash, now), this.clock);
  }

  /**
   * Makes a token of the caller's tenant.
   * @param roles those that the schema declares; Admin always is one
   * @returns what is known of it, and the token, which can never be read again
   * @throws CodedError VALIDATION_ERROR; CONFLICT when there are as many as the plan allows, or 500
   */
  async create(
    database: AppDatabase,
    person: Person,
    wanted: NewApiToken,
    roles: readonly string[],
    from: Omit<By, 'actor'> = {},
  ): Promise<{ apiToken: ApiToken; token: string }> {
    const { name, role, scopes, expiresAt } = this.checked(wanted, roles);
    const { tenantId, actor } = person;
    const by = checkBy({ ...from, actor });
    const token = `${API_TOKEN_PREFIX}${randomBytes(SECRET_BYTES).toString('base64url')}`;
    const id = uuidv7();
    const row = await database.transaction(tenantId, async (tx) => {
      await requireRoom(tx, tenantId, 'apiTokens', this.now());
      const [held] = await tx.query<{ count: number }>(`select count(*)::int as count from api_tokens where ${HOLDS}`, [
        this.now(),
      ]);
      if (held!.count >= MOST_TOKENS) {
        throw apiError('CONFLICT', `There are ${MOST_TOKENS} tokens already. Revoke those that nobody uses.`);
      }
      await tx.execute(
        `insert into api_tokens (id, tenant_id, name, token_hash, prefix, role, scopes, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
        [id, tenantId, name, secretHash(token), token.slice(0, SHOWN_CHARACTERS), role, scopes, this.now(), expiresAt],
      );
      const event = accessEvent('tokenCreated', { name, role, scopes, expiresAt: expiresAt?.toISOString() ?? null });
      await recordAccess(tx, tenantId, accessStream('token', id), event, by);
      const [made] = await tx.query<TokenRow>(`select ${COLUMNS} from api_tokens where id = $1`, [id]);
      return made!;
    });
    this.options.onAppended?.(tenantId);
    return { apiToken: tokenOf(row), token };
  }

  /** The tokens of the caller's tenant that hold, newest first; never more than the 500 there can be. */
  async list(database: AppDatabase, { tenantId }: Principal): Promise<ApiToken[]> {
    const rows = await database.transaction(tenantId, (tx) =>
      tx.query<TokenRow>(`select ${COLUMNS} from api_tokens where ${HOLDS} order by created_at desc, id desc`, [
        this.now(),
      ]),
    );
    return rows.map(tokenOf);
  }

  /**
   * Revokes a token: within 5 s everywhere, open sockets and subscriptions included.
   * @returns false when the tenant has no such token, or it was revoked before
   * @throws CodedError VALIDATION_ERROR for a wrong reason
   */
  async revoke(
    database: AppDatabase,
    { tenantId, actor }: Principal,
    id: string,
    from: Omit<By, 'actor'> = {},
  ): Promise<boolean> {
    const by = checkBy({ ...from, actor });
    if (!isUuid(id)) return false;
    const isRevoked = await database.transaction(tenantId, async (tx) => {
      const sql = 'update api_tokens set revoked_at = $2 where id = $1 and revoked_at is null';
      if ((await tx.execute(sql, [id, this.now()])) === 0) return false;
      const event = accessEvent('tokenRevoked', { reason: 'revoked' });
      await recordAccess(tx, tenantId, accessStream('token', id), event, by);
      return true;
    });
    if (isRevoked) this.options.onAppended?.(tenantId);
    return isRevoked;
  }

  /**
   * Who comes with a token.
   * @param believedMs how old what this process knows of it may be; 5 s unless given
   * @throws CodedError UNAUTHENTICATED, the same whether it is unknown, revoked or has run out
   */
  async verify(token: string, believedMs?: number): Promise<Principal> {
    if (!API_TOKEN.test(token)) throw invalidAccessToken();
    const known = await this.known.get(secretHash(token), believedMs);
    if (!known || this.clock.now() >= known.expiresAt) throw invalidAccessToken();
    return known.principal;
  }

  private now(): Date {
    return new Date(this.clock.now());
  }

  private checked(wanted: NewApiToken, roles: readonly string[]): NewApiToken & { readonly scopes: readonly Scope[] } {
    const name = wanted.name.trim();
    if (name === '' || name.length > LONGEST_NAME || /\p{C}/u.test(name)) {
      throw invalid('name', `A name has 1 to ${LONGEST_NAME} characters, none of them control characters.`);
    }
    const known = [...new Set([ADMIN_ROLE, ...roles])];
    if (!known.includes(wanted.role)) throw invalid('role', `There is no such role. There are ${known.join(', ')}.`);
    const scopes = SCOPES.filter((scope) => wanted.scopes.includes(scope));
    if (scopes.length === 0 || !wanted.scopes.every((scope) => (SCOPES as readonly string[]).includes(scope))) {
      throw invalid('scopes', `The scopes are one or both of ${SCOPES.join(', ')}.`);
    }
    if (wanted.expiresAt !== null && !(wanted.expiresAt.getTime() > this.clock.now())) {
      throw invalid('expiresAt', 'A token cannot have run out before it is made.');
    }
    return { ...wanted, name, scopes };
  }

  private async lookUp(hash: string, now: number): Promise<Known | undefined> {
    return this.system.transaction(async (tx) => {
      const [row] = await tx.query<TokenRow>(`select ${COLUMNS} from api_tokens where ${HOLDS} and token_hash = $2`, [
        new Date(now),
        hash,
      ]);
      if (!row) return undefined;
      if (row.last_used_at === null || now - row.last_used_at.getTime() > LAST_USED_SECONDS * 1000) {
        await tx.execute('update api_tokens set last_used_at = $2 where id = $1', [row.id, new Date(now)]);
      }
      const { id, tenant_id: tenantId, role, scopes, expires_at } = row;
      const principal = { tenantId, role, scopes, tokenId: id, actor: `token:${id}` };
      return { principal, expiresAt: expires_at?.getTime() ?? Infinity };
    });
  }
}

function invalid(field: string, message: string) {
  return apiError('VALIDATION_ERROR', message, { field });
}
