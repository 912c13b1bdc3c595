import { parseOptions } from '@node-rs/argon2';
import { hashPassword, NOBODYS_HASH, PASSWORD_HASHING, verifyPassword } from './passwords.js';

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
