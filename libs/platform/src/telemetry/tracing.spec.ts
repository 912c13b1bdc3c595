import { CodedError } from '@atomo-cc/kernel';
import {
  currentTraceparent,
  MAX_TRACES_PER_BATCH,
  openSpan,
  recordSpan,
  recordSpans,
  spanTime,
  startTracing,
  traceIds,
  withoutSpan,
  withSpan,
  type ReadableSpan,
  type SpanExporter,
  type Tracing,
  type TracingOptions,
} from './tracing.js';

const TRACE = '0af7651916cd43dd8448eb211c80319c';
const PARENT = `00-${TRACE}-b7ad6b7169203331-01`;
const UNSAMPLED = `00-${TRACE}-b7ad6b7169203331-00`;

let spans: ReadableSpan[] = [];
let tracing: Tracing | undefined;
const exporter: SpanExporter = {
  export: (ended, done) => {
    spans.push(...ended);
    done({ code: 0 as never });
  },
  shutdown: () => Promise.resolve(),
};

function start(more: Partial<TracingOptions> = {}): void {
  tracing = startTracing({ service: 'test', exporter, ...more });
}

afterEach(async () => {
  await tracing?.stop();
  [spans, tracing] = [[], undefined];
});

const seen = () =>
  spans.map((span) => ({
    name: span.name,
    trace: span.spanContext().traceId,
    parent: span.parentSpanContext?.spanId,
  }));

describe('withSpan', () => {
  it('continues the given trace, and is the parent of what is inside', async () => {
    start();
    const inner = await withSpan('outer', { parent: PARENT }, async () => {
      await Promise.resolve();
      return withSpan('inner', { parent: `00-${'1'.repeat(32)}-${'2'.repeat(16)}-01` }, () => currentTraceparent());
    });
    expect(seen()).toEqual([
      { name: 'inner', trace: TRACE, parent: spans[1]!.spanContext().spanId },
      { name: 'outer', trace: TRACE, parent: 'b7ad6b7169203331' },
    ]);
    expect(inner).toBe(`00-${TRACE}-${spans[0]!.spanContext().spanId}-01`);
  });

  it.each([undefined, '', 'x', `00-${'0'.repeat(32)}-b7ad6b7169203331-01`, `ff-${TRACE}-b7ad6b7169203331-01`])(
    'begins a trace where the parent is %j',
    (parent) => {
      start();
      withSpan('work', { parent }, () => undefined);
      expect(seen()).toEqual([{ name: 'work', trace: expect.not.stringContaining(TRACE), parent: undefined }]);
    },
  );

  it("holds to the caller's decision not to record, all the way down", () => {
    start();
    withSpan('outer', { parent: UNSAMPLED }, () => {
      expect(currentTraceparent()).toBeUndefined();
      withSpan('inner', {}, () => undefined);
    });
    expect(spans).toEqual([]);
  });

  it('records none of its own at ratio 0, and what the caller records', () => {
    start({ ratio: 0 });
    withSpan('own', {}, () => withSpan('inner', {}, () => undefined));
    withSpan('continued', { parent: PARENT }, () => undefined);
    expect(spans.map(({ name }) => name)).toEqual(['continued']);
  });

  it.each([
    [
      'throws',
      () => withSpan('work', {}, () => Promise.reject(new CodedError('CONFLICT', 'ada@example.com', { a: 'ada' }))),
    ],
    [
      'throws at once',
      async () =>
        withSpan('work', {}, () => {
          throw new CodedError('CONFLICT', 'ada@example.com');
        }),
    ],
    [
      'answers',
      () =>
        withSpan(
          'work',
          {},
          () => 1,
          () => new CodedError('CONFLICT', 'ada@example.com'),
        ),
    ],
  ])('says of an error that the work %s its code and nothing else', async (_, work) => {
    start();
    await Promise.resolve(work()).catch((error: unknown) => expect(error).toMatchObject({ code: 'CONFLICT' }));
    const { status, attributes, events } = spans[0]!;
    expect({ status, attributes, events }).toEqual({
      status: { code: 2, message: 'CONFLICT' },
      attributes: { 'error.type': 'CONFLICT' },
      events: [],
    });
  });

  it('hides what an error without a code says', async () => {
    start();
    await expect(withSpan('work', {}, () => Promise.reject(new Error('select ada')))).rejects.toThrow('select ada');
    expect(spans[0]!.status).toEqual({ code: 2, message: 'INTERNAL_ERROR' });
  });
});

it('withoutSpan does work that belongs to nobody in particular', () => {
  start();
  withSpan('work', {}, () => {
    expect(traceIds()).toEqual({ traceId: expect.stringMatching(/^.{32}$/), spanId: expect.stringMatching(/^.{16}$/) });
    expect(withoutSpan(currentTraceparent)).toBeUndefined();
    expect(withoutSpan(traceIds)).toEqual({});
  });
});

describe('spans of work that was done for many', () => {
  it('have the times they are given, and continue their own trace', () => {
    start();
    const before = Date.now();
    const now = spanTime();
    const after = Date.now();
    const traceparent = withSpan('other', {}, () =>
      recordSpan('decide', { parent: PARENT, startTime: now, endTime: now + 2.5 }),
    );
    const span = spans.find(({ name }) => name === 'decide')!;
    expect(traceparent).toBe(`00-${TRACE}-${span.spanContext().spanId}-01`);
    expect(span.parentSpanContext?.spanId).toBe('b7ad6b7169203331');
    expect(span.duration[0]).toBe(0);
    expect(span.duration[1] / 1e6).toBeCloseTo(2.5, 2);
    expect(now).toBeGreaterThan(before - 50);
    expect(now).toBeLessThan(after + 50);
  });

  it('are ended once', () => {
    start();
    const span = openSpan('append', { parent: PARENT })!;
    span.end({ error: new CodedError('CONFLICT', 'x') });
    span.end();
    expect(spans).toHaveLength(1);
  });

  it.each([undefined, UNSAMPLED, 'x'])('are not recorded for a parent %j', (parent) => {
    start();
    expect(openSpan('append', { parent })).toBeNull();
    expect(recordSpan('decide', { parent })).toBeUndefined();
    expect(spans).toEqual([]);
  });

  it('are one for each trace of a batch, linked to its other spans, up to a bound', () => {
    start();
    const id = (n: number, digits: number) => n.toString(16).padStart(digits, '0');
    const parents = Array.from({ length: 300 }, (_, n) => `00-${id((n % 150) + 1, 32)}-${id(n + 1, 16)}-01`);
    recordSpans('project history', [undefined, ...parents, UNSAMPLED], { attributes: { n: 1 } });
    expect(spans).toHaveLength(MAX_TRACES_PER_BATCH);
    expect(new Set(spans.map((span) => span.spanContext().traceId)).size).toBe(MAX_TRACES_PER_BATCH);
    const [first] = spans;
    expect(first!.parentSpanContext?.spanId).toBe(id(1, 16));
    expect(first!.links.map(({ context }) => context.spanId)).toEqual([id(151, 16)]);
    expect(first!.attributes).toEqual({ n: 1, 'batch.parents': 2 });
  });
});

describe('when it is not started', () => {
  it('does the work, and nothing else', async () => {
    start({ exporter: undefined as never, endpoint: '' });
    expect(withSpan('work', { parent: PARENT }, () => currentTraceparent())).toBeUndefined();
    await expect(withSpan('work', {}, () => Promise.reject(new Error('no')))).rejects.toThrow('no');
    expect([openSpan('a', { parent: PARENT }), recordSpan('a', { parent: PARENT }), traceIds()]).toEqual([
      null,
      undefined,
      {},
    ]);
  });

  it('and after a stop neither', async () => {
    start();
    await tracing!.stop();
    withSpan('work', { parent: PARENT }, () => undefined);
    expect(spans).toEqual([]);
    start();
    expect(() => startTracing({ service: 'second', exporter })).toThrow('started already');
  });
});
