import { mayUse, requireUse } from './platform-access.js';
import type { Principal } from './principal.js';

const NAMES = [
  'events',
  'auditLog',
  'projections',
  'users',
  'memorySearch',
  'startHistoricalSync',
  'historicalSyncJob',
];

test('what shows values whatever the rules of their fields is Admin’s alone', () => {
  for (const name of NAMES) {
    expect([name, mayUse('Admin', name)]).toEqual([name, true]);
    for (const role of ['Manager', 'Viewer', '', 'everyone', 'constructor'])
      expect([name, role, mayUse(role, name)]).toEqual([name, role, false]);
  }
});

test('what nobody has opened is closed, also under names that every object has', () => {
  for (const name of ['toString', '__proto__', 'somethingNew']) expect(mayUse('Manager', name)).toBe(false);
  expect(() => requireUse({ role: 'Sales' } as Principal, 'startHistoricalSync')).toThrow(
    expect.objectContaining({ code: 'FORBIDDEN' }),
  );
  expect(() => requireUse({ role: 'Admin' } as Principal, 'startHistoricalSync')).not.toThrow();
});

test('everyone may ask who they are, and see and end their own sessions', () => {
  for (const name of ['me', 'sessions', 'revokeSession']) expect(mayUse('Anyone', name)).toBe(true);
});
