import { converges, SERIES, SERIES_LIMIT_MS, WORLDS } from './testing/convergence.js';

describe('devices that edit, move, lose connection, power and their gateway, and crash at any step', () => {
  it(
    `end with the same files and every token that was typed (${SERIES})`,
    async () => {
      expect(await converges()).toMatchObject({ worlds: WORLDS });
    },
    SERIES_LIMIT_MS,
  );
});
