import { GraphQLError, GraphQLID, GraphQLInt, GraphQLNonNull, GraphQLScalarType, GraphQLString, Kind } from 'graphql';
import { isCalendarDate } from '@atomo-cc/schema';

/** The types of what is always there. */
export const required = {
  id: new GraphQLNonNull(GraphQLID),
  string: new GraphQLNonNull(GraphQLString),
  int: new GraphQLNonNull(GraphQLInt),
};

/** A day of the calendar. */
export const DateScalar = new GraphQLScalarType<string, string>({
  name: 'Date',
  description: 'A day of the calendar without a time, written `2026-11-21`.',
  serialize: String,
  parseValue: readDate,
  parseLiteral: (node) => readDate(node.kind === Kind.STRING ? node.value : undefined),
});

function readDate(value: unknown): string {
  if (isCalendarDate(value)) return value;
  throw new GraphQLError('A Date is a day that exists, written 2026-11-21.');
}

/** A moment. */
export const DateTimeScalar = new GraphQLScalarType<string, string>({
  name: 'DateTime',
  description: 'A moment in UTC, written `2026-11-21T07:25:18.123Z`.',
  serialize: (value) => (value instanceof Date ? value.toISOString() : String(value)),
  parseValue: readDateTime,
  parseLiteral: (node) => readDateTime(node.kind === Kind.STRING ? node.value : undefined),
});

function readDateTime(value: unknown): string {
  const isIso =
    typeof value === 'string' && /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})$/.test(value);
  if (isIso && isCalendarDate(value.slice(0, 10)) && !Number.isNaN(Date.parse(value))) {
    const utc = new Date(value).toISOString();
    // The offset may have carried it out of the years that Postgres reads.
    if (isCalendarDate(utc.slice(0, 10))) return utc;
  }
  throw new GraphQLError('A DateTime is a moment with its offset, written 2026-11-21T07:25:18Z.');
}

/** Free-form data, such as what an event carries. */
export const JsonScalar = new GraphQLScalarType<unknown, unknown>({
  name: 'JSON',
  description: 'Data of any shape.',
  serialize: (value) => value,
});
