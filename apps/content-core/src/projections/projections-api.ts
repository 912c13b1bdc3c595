import {
  GraphQLBoolean,
  GraphQLEnumType,
  GraphQLFloat,
  GraphQLInt,
  GraphQLList,
  GraphQLNonNull,
  GraphQLObjectType,
  GraphQLString,
} from 'graphql';
import {
  BUILD_STATES,
  visibleProjections,
  type BuildProgress,
  type ProjectionStatus,
  type VisibleBuild,
} from '@atomo-cc/event-store';
import type { AppDatabase } from '@atomo-cc/platform/postgres';
import { DateTimeScalar, type ApiContext, type ApiPart } from '../api/index.js';

// A Float also where it counts: GraphQL's Int ends at two thousand million, which events may exceed.
const figure = (description: string) => ({ type: new GraphQLNonNull(GraphQLFloat), description });

const Progress = new GraphQLObjectType<BuildProgress>({
  name: 'ProjectionBuildProgress',
  fields: {
    eventsDone: figure('Applied since it began.'),
    eventsToDo: {
      type: GraphQLFloat,
      description:
        'In the log when it began; null while they are counted, and when it goes on after it was live before.',
    },
    eventsPerSecond: figure('Over its whole time.'),
    etaMs: { type: GraphQLFloat, description: 'Milliseconds until it has caught up; null while that cannot be told.' },
  },
});

const isAnyShard = (state: VisibleBuild['shards'][number]['state']) => (build: VisibleBuild) =>
  build.shards.some((shard) => shard.state === state);

const Build = new GraphQLObjectType<VisibleBuild>({
  name: 'ProjectionBuild',
  description: 'One making of a projection from the log, with tables of its own. Readers see the live one.',
  fields: {
    build: { type: new GraphQLNonNull(GraphQLInt), description: 'Its number, from 1 on.' },
    version: { type: new GraphQLNonNull(GraphQLInt), description: 'Of the code that makes it.' },
    state: {
      type: new GraphQLNonNull(
        new GraphQLEnumType({
          name: 'ProjectionBuildState',
          values: Object.fromEntries(BUILD_STATES.map((state) => [state, {}])),
        }),
      ),
    },
    isOneTenant: {
      type: new GraphQLNonNull(GraphQLBoolean),
      description: "Whether it makes your tenant's rows alone; else those of all.",
      resolve: (build) => build.tenant !== null,
    },
    progress: { type: Progress, description: 'Null unless it is under way.' },
    lagEvents: figure('Positions of the log behind which it is: at least so many events wait. 0 when it has all.'),
    lagMs: figure(
      "The age of your tenant's oldest event that it has not applied, in milliseconds; 0 when there is none.",
    ),
    eventsPerSecond: figure('Applied, over the last ten seconds or so.'),
    errorsPerSecond: figure('Attempts that failed, over the last ten seconds or so.'),
    openDeadLetters: {
      type: new GraphQLNonNull(GraphQLInt),
      description: 'Events of your tenant that it could not apply and has passed over.',
    },
    isPaused: {
      type: new GraphQLNonNull(GraphQLBoolean),
      description: 'Whether an operator holds it, or a part of it.',
      resolve: isAnyShard('paused'),
    },
    isStopped: {
      type: new GraphQLNonNull(GraphQLBoolean),
      description: 'Whether it, or a part of it, has met a fault that only an operator can mend.',
      resolve: isAnyShard('stopped'),
    },
    requestedAt: { type: new GraphQLNonNull(DateTimeScalar) },
    liveAt: { type: DateTimeScalar, description: 'When it went live the last time.' },
  },
});

const ProjectionType = new GraphQLObjectType<ProjectionStatus<VisibleBuild>>({
  name: 'Projection',
  description: 'Something that is computed from the log: the rows of a model, the history.',
  fields: {
    name: { type: new GraphQLNonNull(GraphQLString), resolve: ({ projection }) => projection },
    mode: {
      type: new GraphQLNonNull(
        new GraphQLEnumType({
          name: 'ProjectionMode',
          values: {
            async: { description: 'The log is applied to it behind the commands.' },
            inline: { description: 'The commands write it; only builds that are not live are fed from the log.' },
          },
        }),
      ),
      resolve: ({ live, builds }) => (live ?? builds[0]!).mode,
    },
    live: { type: Build, description: 'The build that is read.' },
    builds: {
      type: new GraphQLNonNull(new GraphQLList(new GraphQLNonNull(Build))),
      description: 'The newest twenty, newest first.',
    },
  },
});

/** The field that tells how projections and their builds stand, as far as the tenant of the request may see it. */
export function projectionsApi(database: AppDatabase): ApiPart {
  return {
    query: {
      projections: {
        type: new GraphQLNonNull(new GraphQLList(new GraphQLNonNull(ProjectionType))),
        description:
          'What is computed from the log, by name, and how it stands. Orders (rebuild, switch, roll back, cancel, pause, retry) ' +
          'concern all tenants, so they are given on the command line by who has the database: npm run projections.',
        resolve: (_source, _args, context: ApiContext) =>
          database.transaction(context.principal.tenantId, visibleProjections),
      },
    },
  };
}
