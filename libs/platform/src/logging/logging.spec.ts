import { createLogger, loggedUrl, nestLogger, withoutWords } from './logging.js';

/** What a logger writes: pino writes to the descriptor itself, so its stream is swapped. */
function written(work: (logger: ReturnType<typeof createLogger>) => void, level = 'debug'): Record<string, unknown>[] {
  const logger = createLogger('content-core', level);
  const stream = (logger as unknown as Record<symbol, { write(line: string): void }>)[
    Object.getOwnPropertySymbols(logger).find((symbol) => symbol.description === 'pino.stream')!
  ]!;
  const lines: string[] = [];
  const write = jest.spyOn(stream, 'write').mockImplementation((line: string) => void lines.push(line));
  try {
    work(logger);
  } finally {
    write.mockRestore();
  }
  return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
}

const refusal = () =>
  Object.assign(new Error('duplicate key value violates unique constraint "contact_email"'), {
    code: '23505',
    detail: 'Key (email)=(s3cret) already exists.',
    where: "PL/pgSQL function keep('s3cret') line 3",
    internalQuery: "select 's3cret'",
    parameters: ['s3cret'],
  });

describe('the logger', () => {
  it('writes JSON with the name of the service, from its level on', () => {
    const lines = written((logger) => {
      logger.info({ jobId: '1' }, 'began');
      logger.debug('not shown');
    }, 'info');
    expect(lines).toEqual([expect.objectContaining({ name: 'content-core', level: 30, jobId: '1', msg: 'began' })]);
  });

  it.each([
    { password: 's3cret' },
    { body: { password: 's3cret' } },
    { input: { user: { password: 's3cret' } } },
    { grant: { accessToken: 's3cret', refreshToken: 's3cret' } },
    { refreshToken: 's3cret' },
    { headers: { authorization: 'Bearer s3cret' } },
    { key: { apiKey: 's3cret' } },
    // As ioredis reports a refused login.
    {
      err: Object.assign(new Error('WRONGPASS invalid username-password pair'), {
        command: { name: 'auth', args: ['s3cret'] },
      }),
    },
    // As TypeORM reports a failed statement.
    { err: Object.assign(new Error('duplicate key'), { query: 'insert', parameters: ['s3cret'] }) },
    // As Postgres refuses a row, a value, or a call of a function; as TypeORM wraps that, and as many connections fail at once.
    { err: refusal() },
    { err: Object.assign(new Error('duplicate key'), refusal(), { driverError: refusal() }) },
    { err: new AggregateError([refusal(), refusal()], 'all refused') },
    { err: new Error('a projection failed', { cause: refusal() }) },
    {
      req: {
        id: '1',
        method: 'GET',
        url: '/socket.io/?key=s3cret',
        headers: { authorization: 's3cret', 'x-api-key': 's3cret' },
      },
    },
  ])('hides secrets: %j', (line) => {
    const [logged] = written((logger) => logger.warn(line, 'look'));
    expect(JSON.stringify(logged)).not.toContain('s3cret');
    expect(logged).toMatchObject({ msg: 'look' });
  });

  it('changes nothing of an error that it logs', () => {
    const err = Object.assign(new Error('outer'), { driverError: refusal(), others: [refusal()] });
    written((logger) => logger.error({ err }, 'failed'));
    expect([err.driverError, ...err.others].map(({ detail }) => detail)).toEqual([refusal().detail, refusal().detail]);
  });

  it('keeps what an error says', () => {
    const [logged] = written((logger) =>
      logger.error({ err: Object.assign(new Error('no'), { code: '23505' }) }, 'failed'),
    );
    expect(logged).toMatchObject({
      err: { message: 'no', code: '23505', stack: expect.stringContaining('Error: no') },
    });
  });

  it('writes of a request its id, method and path only', () => {
    const [logged] = written((logger) =>
      logger.info({ req: { id: '7', method: 'GET', url: '/a/b?c=d', headers: {}, body: 'x' } }),
    );
    expect(logged!['req']).toEqual({ id: '7', method: 'GET', url: '/a/b?…' });
  });
});

it.each([
  ['/a', '/a'],
  ['/a?key=s3cret', '/a?…'],
  ['/a?', '/a?…'],
  ['/?a?b', '/?…'],
  ['', ''],
])('the logged form of %j is %j', (url, logged) => expect(loggedUrl(url)).toBe(logged));

it("Nest's own lines reach the logger, with their context", () => {
  const lines = written((logger) => {
    const nest = nestLogger(logger);
    nest.log('mapped', 'Router');
    nest.error(new Error('broken'), 'Injector');
    nest.warn('beware');
  });
  expect(lines).toEqual([
    expect.objectContaining({ level: 20, msg: 'mapped', context: 'Router' }),
    expect.objectContaining({
      level: 50,
      msg: 'broken',
      context: 'Injector',
      err: expect.objectContaining({ message: 'broken' }),
    }),
    expect.objectContaining({ level: 40, msg: 'beware' }),
  ]);
});

it('says of an error whose words may quote values what kind it was and where, and no word of it', () => {
  const broken = Object.assign(new RangeError('no s3cret\n    at s3cret (s3cret.js:1:1)'), { code: 'P0001' });
  const [line] = written((logger) => logger.warn({ err: withoutWords(broken) }, 'failed'));
  expect(JSON.stringify(line)).not.toContain('s3cret');
  expect(line!['err']).toMatchObject({
    code: 'P0001',
    stack: expect.stringMatching(/^RangeError: .*\n\s+at .*logging\.spec/),
  });
  expect(withoutWords('s3cret').stack).not.toContain('s3cret');
});
