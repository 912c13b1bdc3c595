import { createHash, timingSafeEqual } from 'node:crypto';
import {
  type CanActivate,
  createParamDecorator,
  type ExecutionContext,
  Inject,
  Injectable,
  SetMetadata,
} from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import type { FastifyRequest } from 'fastify';
import {
  isBelow,
  isWholeStoreKey,
  KEY_HEADER,
  MASTER_KEY_PREFIX,
  type Permission,
  PERMISSIONS,
  syncError,
  type SyncPath,
} from '@atomo-cc/sync-protocol';
import { KeyRing, type StoreKey } from './key-ring.js';

/** The token under which the master key is injected. */
export const MASTER_KEY = Symbol('master key');

const NEEDS = 'needs';
const bearers = new WeakMap<FastifyRequest, StoreKey>();

/** What the key must be permitted for a route; `any` lets in every key. */
export const Needs = (permission: Permission | 'any') => SetMetadata(NEEDS, permission);

/** The key that a request came with; only behind StoreKeyGuard. */
export const Bearer = createParamDecorator((_data: unknown, context: ExecutionContext): StoreKey => {
  const key = bearers.get(context.switchToHttp().getRequest<FastifyRequest>());
  if (!key) throw new Error('a route that takes @Bearer needs StoreKeyGuard');
  return key;
});

/** The key that a request came with, whatever became of it; undefined when it had none that holds. */
export function bearerOf(request: FastifyRequest): StoreKey | undefined {
  return bearers.get(request);
}

/** Throws FORBIDDEN unless the key has the permission; the same rule for REST and sockets. */
export function requirePermission(key: StoreKey, permission: Permission): void {
  if (key.permissions.includes(permission)) return;
  throw syncError('FORBIDDEN', `${permission === 'read' ? 'Read' : 'Write'} permission required`);
}

/** Whether the key sees and writes this path. */
export function covers(key: Pick<StoreKey, 'prefixes'>, path: SyncPath): boolean {
  return key.prefixes.length === 0 || key.prefixes.some((folder) => isBelow(folder, path));
}

/** Throws FORBIDDEN unless the key covers the path; the same rule for REST and sockets. */
export function requirePath(key: StoreKey, path: SyncPath): void {
  if (!covers(key, path)) throw syncError('FORBIDDEN', 'The path lies outside of the folders of this key.');
}

/** Lets a request in by a store's key in X-API-Key. */
@Injectable()
export class StoreKeyGuard implements CanActivate {
  constructor(
    private readonly keys: KeyRing,
    private readonly reflector: Reflector,
  ) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    const request = context.switchToHttp().getRequest<FastifyRequest>();
    const presented = presentedKey(request);
    const key = await this.keys.find(presented);
    if (!key) throw invalid(presented);
    bearers.set(request, key);
    // A route that forgets to say what it needs is closed to all but keys that may do everything.
    const needed = this.reflector.get<Permission | 'any' | undefined>(NEEDS, context.getHandler());
    const permissions = needed === 'any' ? [] : needed ? [needed] : PERMISSIONS;
    for (const permission of permissions) requirePermission(key, permission);
    return true;
  }
}

/** Lets a request in by the master key in X-API-Key. */
@Injectable()
export class MasterKeyGuard implements CanActivate {
  constructor(@Inject(MASTER_KEY) private readonly masterKey: string) {}

  canActivate(context: ExecutionContext): boolean {
    const presented = presentedKey(context.switchToHttp().getRequest<FastifyRequest>());
    if (!presented.startsWith(MASTER_KEY_PREFIX)) throw syncError('FORBIDDEN', 'Admin API key required');
    if (!isSame(presented, this.masterKey)) throw syncError('UNAUTHORIZED', 'Invalid admin API key');
    return true;
  }
}

/** Says what its bearer can mend; that a key has the right form is no secret. */
function invalid(presented: string) {
  const hint = isWholeStoreKey(presented) ? '' : ': a character of it is wrong or missing';
  return syncError('UNAUTHORIZED', `Invalid API key${hint}`);
}

function presentedKey(request: FastifyRequest): string {
  const presented = request.headers[KEY_HEADER];
  if (typeof presented !== 'string' || presented === '') throw syncError('UNAUTHORIZED', 'API key required');
  return presented;
}

/** Compares digests, which are equally long, in a time that does not tell how much of the key was right. */
function isSame(left: string, right: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(left), digest(right));
}
