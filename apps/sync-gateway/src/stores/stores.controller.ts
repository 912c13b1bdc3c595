import { Body, Controller, Delete, Get, HttpCode, Param, Post, Query, Req, UseGuards } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import {
  type ApiKey,
  type By,
  deleteStoreApiKeys,
  issueApiKey,
  listApiKeys,
  revokeApiKey,
  rotateApiKey,
} from '@atomo-cc/access';
import { DEFAULT_TENANT_ID, isUuid, type TenantId, tenantId } from '@atomo-cc/kernel';
import { AppDatabase } from '@atomo-cc/platform/postgres';
import {
  type AuditPage,
  AuditQuery,
  CreateKeyBody,
  CreateStoreBody,
  type DeviceList,
  type KeyView,
  pageSize,
  parsePayload,
  REST_BASE,
  KeyChangeQuery,
  RotateKeyBody,
  storeKeyPrefix,
  type StoreView,
  syncError,
  syncPath,
  TenantQuery,
} from '@atomo-cc/sync-protocol';
import { audit, listDevices } from '../audit/index.js';
import { KeyRing, MasterKeyGuard } from '../credentials/index.js';
import { Clients } from '../sockets/index.js';
import { createStore, deleteStore, getStore, listStores } from './stores.js';

/** Stores and their keys, for the holder of the master key; in the default tenant unless `tenantId` names another. */
@Controller(`${REST_BASE}/admin/stores`)
@UseGuards(MasterKeyGuard)
export class StoresController {
  constructor(
    private readonly database: AppDatabase,
    private readonly keys: KeyRing,
    private readonly clients: Clients,
  ) {}

  @Get()
  async list(@Query() query: unknown): Promise<{ stores: StoreView[] }> {
    return { stores: await this.database.transaction(tenantOf(query), listStores) };
  }

  @Post()
  async create(@Query() query: unknown, @Body() body: unknown): Promise<StoreView> {
    const { name, tenantId: named, quotaBytes } = parsePayload(CreateStoreBody, body);
    const tenant = tenantOf(named ? { tenantId: named } : query);
    return this.database.transaction(tenant, (tx) => createStore(tx, tenant, name, quotaBytes ?? null));
  }

  @Get(':storeId')
  async get(@Param('storeId') storeId: string, @Query() query: unknown): Promise<StoreView> {
    return this.database.transaction(tenantOf(query), (tx) => getStore(tx, uuid('store', storeId)));
  }

  @Delete(':storeId')
  @HttpCode(204)
  async delete(
    @Param('storeId') storeId: string,
    @Query() query: unknown,
    @Req() request: FastifyRequest,
  ): Promise<void> {
    const ended = await this.database.transaction(tenantOf(query), async (tx) => {
      await deleteStore(tx, uuid('store', storeId));
      return deleteStoreApiKeys(tx, storeId, byOf(request, query));
    });
    this.end(ended);
  }

  @Get(':storeId/keys')
  async listKeys(@Param('storeId') storeId: string, @Query() query: unknown): Promise<{ keys: KeyView[] }> {
    return { keys: await this.keysOf(storeId, query) };
  }

  @Post(':storeId/keys')
  async createKey(
    @Param('storeId') storeId: string,
    @Query() query: unknown,
    @Body() body: unknown,
    @Req() request: FastifyRequest,
  ): Promise<KeyView> {
    const { name, permissions, prefixes, expiresAt } = parsePayload(CreateKeyBody, body);
    if (expiresAt != null && !(Date.parse(expiresAt) > Date.now())) {
      const details = { field: 'expiresAt' };
      throw syncError('VALIDATION_ERROR', 'ExpiresAt has passed: the key would never open the store.', details);
    }
    const tenant = tenantOf(query);
    return this.database.transaction(tenant, async (tx) => {
      const { id } = await getStore(tx, uuid('store', storeId));
      const prefix = storeKeyPrefix(id);
      const wanted = {
        tenantId: tenant,
        storeId: id,
        name,
        permissions,
        prefix,
        prefixes: (prefixes ?? []).map((folder) => syncPath(folder)),
        expiresAt: expiresAt == null ? null : new Date(expiresAt),
      };
      const { row, key } = await issueApiKey(tx, wanted, byOf(request, query));
      return { ...viewOf(row), key };
    });
  }

  /** A new key that may do what this one may, which ends after the overlap. Devices change over without a gap. */
  @Post(':storeId/keys/:keyId/rotate')
  async rotateKey(
    @Param('storeId') storeId: string,
    @Param('keyId') keyId: string,
    @Query() query: unknown,
    @Body() body: unknown,
    @Req() request: FastifyRequest,
  ): Promise<KeyView> {
    const id = uuid('key', keyId);
    const { overlapSeconds } = parsePayload(RotateKeyBody, body ?? {});
    const rotated = await this.database.transaction(tenantOf(query), (tx) =>
      rotateApiKey(tx, uuid('store', storeId), id, overlapSeconds ?? 0, byOf(request, query)),
    );
    if (!rotated) throw noKey(keyId);
    this.keys.forget(id);
    if ((overlapSeconds ?? 0) === 0) this.end([id]);
    return { ...viewOf(rotated.row), key: rotated.key };
  }

  @Get(':storeId/keys/:keyId')
  async getKey(
    @Param('storeId') storeId: string,
    @Param('keyId') keyId: string,
    @Query() query: unknown,
  ): Promise<KeyView> {
    uuid('key', keyId);
    const found = (await this.keysOf(storeId, query)).find((key) => key.id === keyId.toLowerCase());
    if (!found) throw noKey(keyId);
    return found;
  }

  @Delete(':storeId/keys/:keyId')
  @HttpCode(204)
  async revokeKey(
    @Param('storeId') storeId: string,
    @Param('keyId') keyId: string,
    @Query() query: unknown,
    @Req() request: FastifyRequest,
  ): Promise<void> {
    const id = uuid('key', keyId);
    const store = uuid('store', storeId);
    const isRevoked = await this.database.transaction(tenantOf(query), (tx) =>
      revokeApiKey(tx, store, id, byOf(request, query)),
    );
    if (!isRevoked) throw noKey(keyId);
    this.end([id]);
  }

  /** Who changed what, newest first. */
  @Get(':storeId/audit')
  async audit(@Param('storeId') storeId: string, @Query() query: unknown): Promise<AuditPage> {
    const { path, keyId, device, limit, before } = parsePayload(AuditQuery, query);
    const asked = {
      path: path ?? null,
      keyId: keyId ?? null,
      device: device ?? null,
      limit: pageSize(limit),
      before: before == null ? null : Number(before),
    };
    return this.database.transaction(tenantOf(query), async (tx) => {
      const { id } = await getStore(tx, uuid('store', storeId));
      return audit(tx, id, asked);
    });
  }

  @Get(':storeId/devices')
  async devices(@Param('storeId') storeId: string, @Query() query: unknown): Promise<DeviceList> {
    return this.database.transaction(tenantOf(query), async (tx) => {
      const { id } = await getStore(tx, uuid('store', storeId));
      return listDevices(tx, id);
    });
  }

  private async keysOf(storeId: string, query: unknown): Promise<KeyView[]> {
    return this.database.transaction(tenantOf(query), async (tx) => {
      const { id } = await getStore(tx, uuid('store', storeId));
      return (await listApiKeys(tx, id)).map(viewOf);
    });
  }

  /** From here on these keys open nothing on this node; the others notice within 5 s. */
  private end(keyIds: readonly string[]): void {
    for (const id of keyIds) this.keys.forget(id);
    const ended = new Set(keyIds);
    this.clients.revoke((key) => ended.has(key.id));
  }
}

/** Who comes with the master key is the operator, whoever that is; where from is all that can be told. */
function byOf(request: FastifyRequest, query: unknown): By {
  const { reason } = parsePayload(KeyChangeQuery, query);
  return {
    actor: 'operator:master-key',
    address: request.ip,
    requestId: request.id,
    ...(reason != null && { reason }),
  };
}

function tenantOf(query: unknown): TenantId {
  const { tenantId: named } = parsePayload(TenantQuery, query);
  return named ? tenantId(named.toLowerCase()) : DEFAULT_TENANT_ID;
}

function uuid(what: string, id: string): string {
  const lower = id.toLowerCase();
  if (!isUuid(lower)) throw syncError('VALIDATION_ERROR', `The ${what} id in the address is not a UUID.`);
  return lower;
}

function noKey(keyId: string) {
  return syncError('NOT_FOUND', `The store has no key ${keyId}, or it was revoked.`);
}

function viewOf(key: ApiKey): KeyView {
  return {
    id: key.id,
    name: key.name,
    permissions: key.permissions,
    prefix: key.prefix,
    prefixes: key.prefixes,
    expiresAt: key.expiresAt?.toISOString() ?? null,
    createdAt: key.createdAt.toISOString(),
    lastUsedAt: key.lastUsedAt?.toISOString() ?? null,
  };
}
