import { checkPostgres } from './postgres.js';

/** The throw-away Postgres of jest's global set-up. */
const databaseUrl = process.env.ATOMO_TEST_DATABASE_URL!;

describe('a Postgres given by URL', () => {
  const broken = (change: (url: URL) => void) => {
    const url = new URL(databaseUrl);
    change(url);
    return checkPostgres(url.href);
  };

  it('tells its version', async () => {
    expect(Number.parseInt(await checkPostgres(databaseUrl), 10)).toBeGreaterThanOrEqual(15);
  });

  it('is refused in one sentence that says what is wrong, never with the password', async () => {
    await expect(broken((url) => (url.password = 'not-it'))).rejects.toThrow(/^DATABASE_URL: .* refuses the login of /);
    await expect(broken((url) => (url.pathname = '/nowhere'))).rejects.toThrow(/has no database "nowhere"/);
    await expect(broken((url) => (url.port = '1'))).rejects.toThrow(/cannot be reached \(.*ECONNREFUSED/);
    await expect(broken((url) => (url.password = 'not-it'))).rejects.not.toThrow(/not-it/);
    const secret = new URL(databaseUrl).password;
    await expect(broken((url) => (url.port = '1'))).rejects.not.toThrow(new RegExp(secret));
  });
});
