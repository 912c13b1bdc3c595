import { createHash, timingSafeEqual } from 'node:crypto';
import { type CanActivate, type ExecutionContext, Inject, Injectable } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { apiError } from '@atomo-cc/kernel';

/** Who may ask for what. */
export interface OpsAccess {
  readonly token: string;
  /** Whether looking needs the token too; changing always does. */
  readonly readsNeedToken: boolean;
}

/** The token under which OpsAccess is injected. */
export const OPS_ACCESS = Symbol('ops access');

/** Lets operators in: `authorization: Bearer <AUTOSCALER_TOKEN>`. */
@Injectable()
export class OpsTokenGuard implements CanActivate {
  constructor(@Inject(OPS_ACCESS) private readonly access: OpsAccess) {}

  canActivate(context: ExecutionContext): boolean {
    const request = context.switchToHttp().getRequest<FastifyRequest>();
    const isRead = request.method === 'GET' || request.method === 'HEAD';
    if (isRead && !this.access.readsNeedToken) return true;
    const given = /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1] ?? '';
    if (isSameSecret(given, this.access.token)) return true;
    throw apiError('UNAUTHENTICATED', 'Send the operators’ token: authorization: Bearer <AUTOSCALER_TOKEN>.');
  }
}

/** Compares in a time that tells nothing: digests have one length, whatever was given. */
function isSameSecret(given: string, wanted: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(given), digest(wanted));
}
