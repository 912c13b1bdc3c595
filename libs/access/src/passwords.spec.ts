import { hash, parseOptions } from '@node-rs/argon2';
import { hashSync } from 'bcryptjs';
import { hashPassword, isOutdated, NOBODYS_HASH, PASSWORD_HASHING, verifyPassword } from './passwords.js';

test('a stored password is argon2id with the named parameters and a salt of its own', async () => {
  const [one, two] = await Promise.all([hashPassword('correct horse'), hashPassword('correct horse')]);
  expect(one).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$/);
  expect(one).not.toBe(two);
  expect(await verifyPassword(one, 'correct horse')).toBe(true);
  expect(await verifyPassword(one, 'correct horse ')).toBe(false);
});

test('without a user the answer is no, after the work that a real hash costs', async () => {
  expect(await verifyPassword(undefined, 'correct horse')).toBe(false);
  expect(NOBODYS_HASH).toMatch(/^\$argon2id\$/);
  const { memoryCost, timeCost, parallelism, outputLen } = PASSWORD_HASHING;
  expect(parseOptions(NOBODYS_HASH)).toMatchObject({ memoryCost, timeCost, parallelism, outputLen });
});

test('a password that bcrypt has hashed is known, and its hash outdated', async () => {
  const stored = hashSync('correct horse', 4);
  expect(await verifyPassword(stored, 'correct horse')).toBe(true);
  expect(await verifyPassword(stored, 'correct horsf')).toBe(false);
  expect(isOutdated(stored)).toBe(true);
  // As PHP and older libraries name the same algorithm.
  expect(await verifyPassword(stored.replace(/^\$2b/, '$2y'), 'correct horse')).toBe(true);
});

test('a hash of bcrypt that would take minutes to try lets nobody in', async () => {
  const began = performance.now();
  expect(await verifyPassword(hashSync('x', 4).replace('$04$', '$25$'), 'x')).toBe(false);
  expect(performance.now() - began).toBeLessThan(20_000);
});

test.each(['', '!', 'x', '$2b$10$short', '$argon2id$v=19$broken'])(
  '%j in place of a hash lets nobody in',
  async (stored) => {
    expect(await verifyPassword(stored, stored)).toBe(false);
  },
);

test.each([
  { algorithm: 1 }, // argon2i
  { memoryCost: PASSWORD_HASHING.memoryCost / 2 },
  { timeCost: 1 },
  { parallelism: 2 },
  { outputLen: 16 },
])('a hash of argon2 with %j is known, and outdated', async (other) => {
  const stored = await hash('correct horse', { ...PASSWORD_HASHING, ...other });
  expect(await verifyPassword(stored, 'correct horse')).toBe(true);
  expect(isOutdated(stored)).toBe(true);
  expect(isOutdated(await hashPassword('correct horse'))).toBe(false);
});
