import {
  GraphQLEnumType,
  GraphQLFloat,
  GraphQLID,
  GraphQLInt,
  GraphQLList,
  GraphQLNonNull,
  GraphQLObjectType,
  GraphQLString,
  type GraphQLFieldConfig,
} from 'graphql';
import { apiError, isCodedError, isUuid } from '@atomo-cc/kernel';
import { SYNC_JOB_STATES } from '@atomo-cc/queues';
import {
  findSyncJob,
  listQuarantined,
  listSyncJobs,
  steerSyncJob,
  type SyncJob,
  type WaitingFor,
} from '@atomo-cc/sync-jobs';
import { connectionOf, decodeCursor, encodeCursor, MAX_PAGE, PageInfo, pageSize } from '../api/index.js';
import type { ApiContext, ApiPart } from '../api/index.js';
import { DateTimeScalar } from '../api/index.js';
import type { Imports } from './imports.js';
import type { ProgressFeed } from './progress-feed.js';

/** A job that has moved on since the caller looked at it is a conflict; the answer says in which state it is. */
function refused(error: unknown): never {
  if (isCodedError(error) && error.code === 'SYNC_JOB_ILLEGAL_MOVE')
    throw apiError('CONFLICT', error.message, error.details);
  throw error;
}

const whole = (description?: string) => ({
  // A Float holds whole numbers to 2^53; GraphQL's Int ends at two thousand million, which bytes exceed.
  type: new GraphQLNonNull(GraphQLFloat),
  ...(description ? { description } : {}),
});

/** The list's only order: newest first. */
const ORDER = 'historicalSyncJobs';

/** The API of historical syncs: start, watch, steer. */
export function syncJobsApi(imports: Imports, feed: ProgressFeed): ApiPart {
  const JobError = new GraphQLObjectType({
    name: 'HistoricalSyncError',
    fields: { code: { type: new GraphQLNonNull(GraphQLString) }, message: { type: new GraphQLNonNull(GraphQLString) } },
  });
  const JobWait = new GraphQLObjectType<WaitingFor>({
    name: 'HistoricalSyncWait',
    description: 'Why a job waits. It goes on by itself.',
    fields: {
      quota: { type: new GraphQLNonNull(GraphQLString), description: 'What of the plan is used up.' },
      limit: whole('How much the plan allows.'),
      renewsAt: { type: new GraphQLNonNull(DateTimeScalar), description: 'When all of it is free again.' },
      message: { type: new GraphQLNonNull(GraphQLString), description: 'The same as a sentence.' },
    },
  });
  const Quarantined = new GraphQLObjectType({
    name: 'QuarantinedRecord',
    description: 'A message that could not be read.',
    fields: {
      offset: whole('Where it starts in the uncompressed archive, in bytes.'),
      code: { type: new GraphQLNonNull(GraphQLString) },
      reason: { type: new GraphQLNonNull(GraphQLString) },
    },
  });
  const Job = new GraphQLObjectType<SyncJob, ApiContext>({
    name: 'HistoricalSyncJob',
    fields: {
      id: { type: new GraphQLNonNull(GraphQLID) },
      integration: { type: new GraphQLNonNull(GraphQLString) },
      importId: { type: new GraphQLNonNull(GraphQLID) },
      status: {
        type: new GraphQLNonNull(
          new GraphQLEnumType({
            name: 'HistoricalSyncStatus',
            values: Object.fromEntries(SYNC_JOB_STATES.map((state) => [state, {}])),
          }),
        ),
      },
      progressPercentage: { type: new GraphQLNonNull(GraphQLInt), description: 'Of the stored bytes, 0 to 100.' },
      bytesTotal: whole(),
      bytesProcessed: whole(),
      recordsProcessed: whole('New, changed, unchanged and quarantined ones together.'),
      recordsNew: whole(),
      recordsChanged: whole(),
      recordsUnchanged: whole('Messages that memory had already.'),
      recordsQuarantined: whole('Messages that could not be read.'),
      people: whole('People this job added.'),
      threads: whole('Threads this job added.'),
      replies: whole('Replies between messages this job added.'),
      entitiesExtracted: whole('Nodes of the graph this job added.'),
      relationshipsExtracted: whole('Edges of the graph this job added.'),
      lastError: { type: JobError },
      waitingFor: { type: JobWait, description: 'What a waiting job waits for; null of all others.' },
      errorCount: {
        type: new GraphQLNonNull(GraphQLInt),
        description: 'Errors in a row, without progress between them.',
      },
      createdAt: { type: new GraphQLNonNull(DateTimeScalar) },
      startedAt: { type: DateTimeScalar },
      completedAt: { type: DateTimeScalar },
      lastHeartbeat: { type: DateTimeScalar, description: "The worker's last sign of life." },
      quarantined: {
        type: new GraphQLNonNull(new GraphQLList(new GraphQLNonNull(Quarantined))),
        description: `The first ${MAX_PAGE} messages that could not be read, with the place and the reason.`,
        resolve: (job, _args, context) =>
          imports.database.transaction(context.principal.tenantId, (tx) => listQuarantined(tx, job.id, MAX_PAGE)),
      },
    },
  });
  const JobConnection = new GraphQLObjectType({
    name: 'HistoricalSyncJobConnection',
    fields: {
      nodes: { type: new GraphQLNonNull(new GraphQLList(new GraphQLNonNull(Job))) },
      pageInfo: { type: new GraphQLNonNull(PageInfo) },
    },
  });
  const find = (id: string, context: ApiContext): Promise<SyncJob | null> =>
    isUuid(id)
      ? imports.database.transaction(context.principal.tenantId, (tx) => findSyncJob(tx, id))
      : Promise.resolve(null);
  const steer = (
    asked: 'pause' | 'resume' | 'cancel',
    description: string,
  ): GraphQLFieldConfig<unknown, ApiContext> => ({
    type: new GraphQLNonNull(Job),
    description,
    args: { id: { type: new GraphQLNonNull(GraphQLID) } },
    resolve: async (_source, { id }: { id: string }, context) => {
      if (!isUuid(id)) throw apiError('NOT_FOUND', 'There is no such job.');
      const job = await imports.database
        .transaction(context.principal.tenantId, (tx) => steerSyncJob(tx, id, asked))
        .catch(refused);
      await imports.jobChanged(id);
      return job;
    },
  });

  return {
    query: {
      historicalSyncJob: {
        type: Job,
        args: { id: { type: new GraphQLNonNull(GraphQLID) } },
        resolve: (_source, { id }: { id: string }, context) => find(id, context),
      },
      historicalSyncJobs: {
        type: new GraphQLNonNull(JobConnection),
        description: 'All jobs, newest first.',
        args: { first: { type: GraphQLInt }, after: { type: GraphQLString } },
        resolve: async (_source, args: { first?: number | null; after?: string | null }, context) => {
          const size = pageSize(args.first);
          const after = args.after ? String(decodeCursor(ORDER, args.after)[0]) : null;
          if (after !== null && !isUuid(after)) throw apiError('VALIDATION_ERROR', 'This is no cursor of ours.');
          const jobs = await imports.database.transaction(context.principal.tenantId, (tx) =>
            listSyncJobs(tx, { first: size + 1, after }),
          );
          return connectionOf(jobs, size, (job) => encodeCursor(ORDER, [job.id]), !args.after);
        },
      },
    },
    mutation: {
      startHistoricalSync: {
        type: new GraphQLNonNull(Job),
        description: 'Reads an upload into memory. What memory has already is not added again.',
        args: { importId: { type: new GraphQLNonNull(GraphQLID), description: 'As POST /api/imports answered it.' } },
        resolve: (_source, { importId }: { importId: string }, context) =>
          imports.start(context.principal.tenantId, importId),
      },
      pauseHistoricalSync: steer('pause', 'Stops after the chunk under way.'),
      resumeHistoricalSync: steer('resume', 'Goes on from the last chunk, also after a failure whose cause is mended.'),
      cancelHistoricalSync: steer('cancel', 'Ends the job; what it has added stays.'),
    },
    subscription: {
      historicalSyncProgress: {
        type: new GraphQLNonNull(Job),
        description: 'The job now and after every chunk, until it has ended.',
        args: { id: { type: new GraphQLNonNull(GraphQLID) } },
        subscribe: async (_source, { id }: { id: string }, context) => {
          if (!(await find(id, context))) throw apiError('NOT_FOUND', 'There is no such job.');
          return feed.follow(id, () => find(id, context));
        },
        resolve: (job) => job,
      },
    },
  };
}
