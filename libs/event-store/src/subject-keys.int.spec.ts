import { randomUUID } from 'node:crypto';
import { ATOMO_EVENTS, modelEvent } from '@atomo-cc/events';
import { tenantId } from '@atomo-cc/kernel';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { append } from './append.js';
import { EventCodec } from './codec.js';
import { readStream } from './read.js';
import { eventStoreMigrations } from './schema.js';
import { destroySubjectKey, SubjectKeys } from './subject-keys.js';

const TENANT = tenantId('00000000-0000-7000-8000-00000000000a');
const [OLD, NEW] = ['the former key, of thirty-two bytes', 'the next key, of thirty-two or more'];
/** More than one transaction of a rotation. */
const SUBJECTS = 1_100;

let database: TestDatabase;
beforeAll(async () => {
  database = await aDatabase(eventStoreMigrations, { poolSize: 6 });
});
afterAll(() => database?.drop());

function write(keys: SubjectKeys, streams: readonly string[]): Promise<unknown> {
  const codec = new EventCodec(keys, ATOMO_EVENTS);
  const metadata = { actor: 'user:1', correlationId: 'c', causationId: 'c' };
  return database.app.transaction(TENANT, async (tx) => {
    const appends = streams.map((stream) => {
      const event = {
        ...modelEvent('Contact', 'updated', { email: stream }),
        personal: { subject: stream, fields: ['email'] },
      };
      return { stream, expected: 'any' as const, events: [event], metadata };
    });
    return append(tx, TENANT, await codec.encode(tx, TENANT, appends));
  });
}

async function read(keys: SubjectKeys, stream: string): Promise<unknown[]> {
  const codec = new EventCodec(keys, ATOMO_EVENTS);
  return database.app.transaction(TENANT, async (tx) => {
    const events = await codec.decode(tx, await readStream(tx, TENANT, stream, { limit: 1_000 }));
    return events.map(({ data }) => data['email']);
  });
}

test('a rotation wraps every key anew while others write, read and erase, and after it the former key is not needed', async () => {
  const old = new SubjectKeys(OLD, [NEW]);
  const rotating = new SubjectKeys(NEW, [OLD]);
  const streams = Array.from({ length: SUBJECTS }, () => `Contact-${randomUUID()}`);
  await write(old, streams);
  const erased = streams[SUBJECTS - 1]!;

  // One goes on with the former key, one has the next one already; both make keys and use those that are being wrapped.
  const late: string[] = [];
  let isOver = false;
  const writer = async (keys: SubjectKeys) => {
    for (let n = 0; !isOver || n < 5; n += 1) {
      const fresh = `Contact-${randomUUID()}`;
      const known = streams[n % 500]!;
      await write(keys, [fresh, known]);
      late.push(fresh);
      expect(await read(keys, fresh)).toEqual([fresh]);
      expect(new Set(await read(keys, known))).toEqual(new Set([known]));
    }
  };
  const writers = [writer(old), writer(rotating)];
  // Killed in the middle: what was wrapped stays so, and the next call goes on with the rest.
  await expect(
    rotating.rewrap(database.system, () => {
      throw new Error('killed');
    }),
  ).rejects.toThrow('killed');
  await database.system.transaction((tx) => destroySubjectKey(tx, TENANT, erased));
  await rotating.rewrap(database.system);
  isOver = true;
  await Promise.all(writers);
  await rotating.rewrap(database.system);

  const after = new SubjectKeys(NEW);
  expect(await database.system.transaction((tx) => after.counts(tx))).toEqual([
    { id: after.ring.id, keys: SUBJECTS - 1 + late.length },
  ]);
  for (const stream of [streams[0]!, streams[600]!, ...late]) {
    expect(new Set(await read(after, stream))).toEqual(new Set([stream]));
  }
  expect(await read(after, erased)).toEqual([null]);
  await expect(read(new SubjectKeys(OLD), streams[0]!)).rejects.toMatchObject({ code: 'ENCRYPTION_KEY_WRONG' });
}, 60_000);

test('a rotation without the former key changes nothing and says which it needs', async () => {
  const former = new SubjectKeys('a third key, of thirty-two or more bytes');
  const stream = `Contact-${randomUUID()}`;
  await write(former, [stream]);
  await expect(new SubjectKeys(NEW).rewrap(database.system)).rejects.toMatchObject({
    code: 'ENCRYPTION_KEY_WRONG',
    details: { needed: former.ring.id },
  });
  expect(await read(former, stream)).toEqual([stream]);
});
