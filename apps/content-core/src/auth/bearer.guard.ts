import { type CanActivate, type ExecutionContext, Inject, Injectable, SetMetadata } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { apiError } from '@atomo-cc/kernel';
import { Callers, type Principal, type Refusals, requireScope } from '@atomo-cc/access';

const PUBLIC = Symbol('public');
/** Beside the requests, not on them: nothing that came over the wire can ever be taken for a principal. */
const principals = new WeakMap<FastifyRequest, Principal>();

/** Lets a controller or a route be called without a token. Everything that does not say so needs one. */
export const Public = (): MethodDecorator & ClassDecorator => SetMetadata(PUBLIC, true);

/**
 * Who sent the request.
 * @throws CodedError UNAUTHENTICATED on a public route, where nobody asked
 */
export function principalOf(request: FastifyRequest): Principal {
  const principal = principals.get(request);
  if (!principal) throw apiError('UNAUTHENTICATED', 'This needs a valid access token.');
  return principal;
}

/** Lets the log know of each request of a known caller that was answered FORBIDDEN. */
export function tellDenials(fastify: FastifyInstance, refusals: Refusals): void {
  fastify.addHook('onResponse', async (request, reply) => {
    const principal = principals.get(request);
    if (reply.statusCode !== 403 || !principal) return;
    const route = request.routeOptions.url ?? 'none';
    refusals.denied(principal, `${request.method} ${route}`, { address: request.ip, requestId: request.id });
  });
}

/** Asks every Nest route for a bearer token, unless it is `Public`. Plain Fastify routes have to ask by themselves. */
@Injectable()
export class BearerGuard implements CanActivate {
  constructor(
    @Inject(Callers) private readonly callers: Callers,
    @Inject(Reflector) private readonly reflector: Reflector,
  ) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    if (this.reflector.getAllAndOverride<boolean>(PUBLIC, [context.getHandler(), context.getClass()])) return true;
    const request = context.switchToHttp().getRequest<FastifyRequest>();
    const principal = await this.callers.admit(request.headers.authorization);
    principals.set(request, principal);
    requireScope(principal, request.method === 'GET' || request.method === 'HEAD' ? 'read' : 'write');
    return true;
  }
}
