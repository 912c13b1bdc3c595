import { GraphQLError, subscribe, type ExecutionArgs, type ExecutionResult } from 'graphql';
import { apiError, isCodedError } from '@atomo-cc/kernel';
import type { Principal } from '@atomo-cc/access';
import { tooDeepVariable } from './document-limits.js';
import type { ApiContext } from './part.js';

/** How often the sessions of open connections are looked at: one that has ended ends what is open. */
const SESSION_LOOK_MS = 1_000;
/**
 * How old what is known of a session may be at such a look. With the time between looks it makes 4 s of the 5 s that are promised,
 * also after a logout on another instance; the rest is for a busy process and a slow database.
 */
const SESSION_BELIEVED_MS = 3_000;
/** Subscriptions that one user has open on this process, whichever way: each asks the database at every change of its tenant. */
export const MAX_SUBSCRIPTIONS = 200;

/** What `graphql` answers to a subscription: its results as they come, or why it has none. */
export type Followed = AsyncIterableIterator<ExecutionResult> | ExecutionResult;

/** Turns an Authorization header into who is calling. @throws CodedError UNAUTHENTICATED */
export type Authenticate = (authorization: string | undefined, believedMs?: number) => Promise<Principal>;

/** A connection that outlives the request that opened it. */
export interface Connection {
  readonly authorization: string | undefined;
  /** When it was opened: what it follows was begun with it. */
  readonly role: string;
  /** Ends it, and all that it follows, at once. Called when its session has ended. */
  end(): void;
}

/** The open connections of subscribers, over whatever transport: each lives no longer than its session, and no user has too many. */
export class Subscribers {
  private readonly connections = new Map<Connection, { isLookedAt: boolean }>();
  private readonly following = new Map<string, number>();
  private readonly looks: NodeJS.Timeout;

  constructor(private readonly authenticate: Authenticate) {
    this.looks = setInterval(() => {
      for (const connection of this.connections.keys()) void this.look(connection);
    }, SESSION_LOOK_MS).unref();
  }

  /** Ends the connection when its session has ended, its token has run out or its user has another role; until `forget`. */
  watch(connection: Connection): void {
    this.connections.set(connection, { isLookedAt: false });
  }

  forget(connection: Connection): void {
    this.connections.delete(connection);
  }

  /** Subscribes, unless the user has MAX_SUBSCRIPTIONS. What it answers is to be left by `return()`, or to be read to its end. */
  async follow(args: ExecutionArgs): Promise<Followed> {
    const tooDeep = tooDeepVariable(args.variableValues);
    if (tooDeep) return { errors: [tooDeep] };
    const user = (args.contextValue as ApiContext).principal.actor;
    const count = this.following.get(user) ?? 0;
    if (count >= MAX_SUBSCRIPTIONS) {
      const details = { limit: 'MAX_SUBSCRIPTIONS', max: MAX_SUBSCRIPTIONS };
      return refused(
        apiError('RATE_LIMITED', `You follow ${count} subscriptions already. Leave some of them.`, details),
      );
    }
    this.following.set(user, count + 1);
    let isOver = false;
    const over = () => {
      if (isOver) return;
      isOver = true;
      const left = this.following.get(user)! - 1;
      if (left > 0) this.following.set(user, left);
      else this.following.delete(user);
    };
    try {
      const results = (await subscribe(args)) as Followed;
      if (Symbol.asyncIterator in results) return new Counted(results, over);
      over();
      return results;
    } catch (error) {
      over();
      return refused(error as Error);
    }
  }

  close(): void {
    clearInterval(this.looks);
    this.connections.clear();
  }

  private async look(connection: Connection): Promise<void> {
    const state = this.connections.get(connection);
    if (!state || state.isLookedAt) return;
    state.isLookedAt = true;
    try {
      const { role } = await this.authenticate(connection.authorization, SESSION_BELIEVED_MS);
      if (role === connection.role) return;
    } catch (error) {
      // A database that does not answer says nothing of the session.
      if (!isCodedError(error) || error.code !== 'UNAUTHENTICATED') return;
    } finally {
      state.isLookedAt = false;
    }
    this.connections.delete(connection);
    connection.end();
  }
}

/** As an answer: a socket would be closed for an error that is thrown, with all else that goes over it. */
function refused(error: Error): ExecutionResult {
  return { errors: [new GraphQLError(error.message, { originalError: error })] };
}

/** The results of a subscription; tells when they are over, however that comes. */
class Counted implements AsyncIterableIterator<ExecutionResult> {
  constructor(
    private readonly results: AsyncIterableIterator<ExecutionResult>,
    private readonly over: () => void,
  ) {}

  async next(): Promise<IteratorResult<ExecutionResult>> {
    try {
      const result = await this.results.next();
      if (result.done) this.over();
      return result;
    } catch (error) {
      this.over();
      throw error;
    }
  }

  async return(): Promise<IteratorResult<ExecutionResult>> {
    this.over();
    return (await this.results.return?.()) ?? { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
