import { PassThrough } from 'node:stream';
import type { FastifyReply } from 'fastify';
import type { ExecutionResult } from 'graphql';
import { print } from 'graphql-sse';
import type { Followed } from './subscribers.js';

/** How often a stream that is silent sends a comment: proxies end what says nothing for a minute. */
const KEEP_ALIVE_MS = 12_000;
/**
 * A subscriber that reads nothing for this long loses its connection. Longer than what a subscription itself waits before it
 * ends with RATE_LIMITED and the place to go on behind, so who reads again in time is told.
 */
export const UNREAD_MS = 30_000;

/**
 * What an Accept header asks for: `wanted` if server-sent events are the best of what it names, `possible` if they are named
 * behind JSON, as by clients that send one header with all operations.
 */
export function eventStreamIn(accept: string | undefined): 'wanted' | 'possible' | 'no' {
  const lower = accept?.toLowerCase();
  if (!lower?.includes('text/event-stream')) return 'no';
  const named = lower.split(',').map((part) => {
    const [type, ...parameters] = part.split(';').map((text) => text.trim());
    const weight = parameters.find((parameter) => parameter.startsWith('q='));
    return { isStream: type === 'text/event-stream', weight: weight ? Number(weight.slice(2)) || 0 : 1 };
  });
  const stream = named.find(({ isStream }) => isStream);
  if (!stream || stream.weight === 0) return 'no';
  // The first of those with the greatest weight: the order of equal ones is the only wish they tell.
  const best = named.reduce((most, each) => (each.weight > most.weight ? each : most));
  return best.isStream ? 'wanted' : 'possible';
}

/** One operation's results on their way to a client by server-sent events. */
export interface EventStream {
  /** Ends it with what is to be said last. */
  end(last: ExecutionResult): void;
  /** Ends it without a word: a client takes that for a broken connection, and comes again. */
  cut(): void;
}

/** What is told of results, and of an error that ends them. */
interface Sayings {
  readonly formatted: (result: ExecutionResult) => ExecutionResult;
  readonly failed: (error: unknown) => ExecutionResult;
}

/**
 * Answers with the results of one operation as they come: the mode "distinct connections" of GraphQL over Server-Sent Events.
 * The next result is taken only when the one before is written, unlike in the handler of `graphql-sse`, which keeps
 * whatever a slow client does not read.
 * @param closed called once when the stream is over, however that comes
 */
export function sendEventStream(
  reply: FastifyReply,
  results: Followed,
  { formatted, failed }: Sayings,
  closed: () => void,
): EventStream {
  const output = new PassThrough();
  const iterator = Symbol.asyncIterator in results ? results : undefined;
  let isWaiting = false;
  let isOver = false;
  const keepAlive = setInterval(() => !isWaiting && output.write(':\n\n'), KEEP_ALIVE_MS).unref();
  const write = async (message: string) => {
    if (isOver || output.write(message)) return;
    isWaiting = true;
    const unread = setTimeout(() => output.destroy(), UNREAD_MS).unref();
    // Whichever comes: closed is what a stream is whose reader has gone.
    await new Promise<void>((resolve) => {
      const go = () => {
        output.off('drain', go).off('close', go);
        resolve();
      };
      output.on('drain', go).on('close', go);
    });
    clearTimeout(unread);
    isWaiting = false;
  };
  const leave = () => {
    if (isOver) return;
    isOver = true;
    clearInterval(keepAlive);
    void iterator?.return?.().catch(() => undefined);
    closed();
  };
  output.once('close', leave);
  const end = (last?: ExecutionResult) => {
    if (isOver) return;
    leave();
    if (last) output.write(nextOf(last));
    output.end(print<false, 'complete'>({ event: 'complete', data: null }));
    // One who does not read is not waited for.
    const unread = setTimeout(() => output.destroy(), UNREAD_MS).unref();
    output.once('close', () => clearTimeout(unread));
  };
  const pump = async () => {
    // Some browsers take the answer for begun only when its first bytes are there.
    await write(':\n\n');
    if (!iterator) return end(formatted(results as ExecutionResult));
    try {
      for await (const result of iterator) await write(nextOf(formatted(result)));
    } catch (error) {
      return end(failed(error));
    }
    return end();
  };
  void pump();
  // The last header tells nginx to pass on what comes as it comes.
  const headers = { 'cache-control': 'no-cache', 'x-accel-buffering': 'no' };
  void reply.status(200).type('text/event-stream; charset=utf-8').headers(headers).send(output);
  return { end, cut: () => void output.destroy() };
}

function nextOf(result: ExecutionResult): string {
  return print<false, 'next'>({ event: 'next', data: result });
}
