import { Readable } from 'node:stream';

/**
 * A body of pages that are made when they are wanted: besides the page that is being sent no more than one is held. Ends its
 * source in every case, also when the reader goes away.
 * @param first what `pages` gave first
 */
export function streamOf(first: IteratorResult<string, undefined>, pages: AsyncGenerator<string, undefined>): Readable {
  let made: Promise<IteratorResult<string, undefined>> | null = Promise.resolve(first);
  const stream = new Readable({
    highWaterMark: 1,
    read() {
      const page = made ?? pages.next();
      made = null;
      page.then(
        ({ value }) => this.push(value ?? null),
        (error: unknown) => this.destroy(error as Error),
      );
    },
  });
  return stream.once('close', () => void pages.return(undefined).catch(() => undefined));
}
