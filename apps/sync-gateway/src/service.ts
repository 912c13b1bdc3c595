import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import type { FastifyInstance } from 'fastify';
import { Health } from '@atomo-cc/platform/health';
import type { ServiceOptions } from '@atomo-cc/platform/lifecycle';
import { AppDatabase, migrate, openAppDatabase, openSystemDatabase } from '@atomo-cc/platform/postgres';
import {
  asyncApi,
  DEVICE_HEADER,
  FRAME_LIMIT_BYTES,
  KEY_HEADER,
  openApi,
  PART_LIMIT_BYTES,
  PUSH_LIMIT_BYTES,
  REST_BASE,
  REST_BASE_2,
} from '@atomo-cc/sync-protocol';
import { AppModule } from './app.module.js';
import type { GatewayConfig } from './config.js';
import { restFault } from './faults/index.js';
import { gatewayMigrations } from './migrations.js';
import { Relay, SocketServer } from './sockets/index.js';

/** What carries whole contents in protocol 1. */
const CARRYING = [`/${REST_BASE}/files`, `/${REST_BASE}/settings`];
/** How long a browser may remember the answer to a CORS preflight, in seconds. */
const PREFLIGHT_SECONDS = 600;

/** Migrates, opens the databases and tells how the gateway is run. */
export async function gatewayService(config: GatewayConfig): Promise<ServiceOptions> {
  await migrate(config.DATABASE_URL, gatewayMigrations);
  const database = { url: config.DATABASE_URL, service: 'sync-gateway' };
  const app = await openAppDatabase(database);
  const system = await openSystemDatabase(database);
  return {
    name: 'sync-gateway',
    module: AppModule.with({
      app,
      system,
      redisUrl: config.REDIS_URL,
      masterKey: config.GATEWAY_MASTER_KEY,
      bounds: {
        opsPerSecond: config.SYNC_OPS_PER_SECOND,
        quotaBytes: config.SYNC_QUOTA_MIB * 1024 * 1024,
        retentionDays: config.SYNC_RETENTION_DAYS,
      },
    }),
    config,
    port: config.SYNC_GATEWAY_PORT,
    configure,
    unroutable: restFault,
    close: () => Promise.all([app.close(), system.close()]),
  };
}

function configure(app: NestFastifyApplication): void {
  const fastify: FastifyInstance = app.getHttpAdapter().getInstance();
  fastify.addHook('onRoute', (route) => {
    if (CARRYING.some((base) => route.url.startsWith(base))) route.bodyLimit = FRAME_LIMIT_BYTES;
    if (route.url.startsWith(`/${REST_BASE_2}/ops`)) route.bodyLimit = 2 * PUSH_LIMIT_BYTES;
    if (route.url.startsWith(`/${REST_BASE_2}/blobs`)) route.bodyLimit = PART_LIMIT_BYTES;
  });
  fastify.addContentTypeParser('application/octet-stream', { parseAs: 'buffer' }, (_request, body, done) =>
    done(null, body),
  );
  // Keys ride in a header that a page must set on purpose, never in a cookie: any origin may ask, none is trusted.
  app.enableCors({
    origin: '*',
    methods: ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'],
    allowedHeaders: ['content-type', KEY_HEADER, DEVICE_HEADER, 'range', 'if-match', 'if-none-match'],
    exposedHeaders: ['x-request-id', 'etag', 'content-range', 'accept-ranges'],
    maxAge: PREFLIGHT_SECONDS,
  });
  app.useWebSocketAdapter(new SocketServer(app, app.get(Relay)));

  const database = app.get(AppDatabase);
  app.get(Health).add('postgres', () => database.ping());
  addProtocolHealth(fastify, database);
  addDescriptions(fastify);
}

/** GET /health as protocol 1 has it, beside the /health/live and /health/ready of every service. */
function addProtocolHealth(fastify: FastifyInstance, database: AppDatabase): void {
  fastify.get('/health', async (_request, reply) => {
    const isUp = await database.ping().then(
      () => true,
      () => false,
    );
    return reply.status(isUp ? 200 : 503).send({
      status: isUp ? 'healthy' : 'degraded',
      version: '1',
      uptime: Math.floor(process.uptime()),
      database: isUp ? 'connected' : 'disconnected',
    });
  });
}

/** What the gateway takes and gives, for programs that make clients and for people who read. */
function addDescriptions(fastify: FastifyInstance): void {
  const documents = { '/api/openapi.json': openApi(), '/api/asyncapi.json': asyncApi() };
  for (const [path, document] of Object.entries(documents)) fastify.get(path, () => document);
}
