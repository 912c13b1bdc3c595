import fs from 'node:fs';
import path from 'node:path';
import { isQuota, PLANS, QUOTA_NAMES, QUOTAS } from './plans.js';

const DOCS = path.resolve(import.meta.dirname, '../../../docs/plans.md');
const shown = (limit: number | null) => (limit === null ? 'none' : limit.toLocaleString('en'));

test('docs/plans.md says what the plans allow, and why', () => {
  const rows = [...fs.readFileSync(DOCS, 'utf8').matchAll(/^\| *`(\w+)` *\|(.*)\|$/gm)].map(([, name, cells]) => [
    name,
    ...cells!.split('|').map((cell) => cell.trim()),
  ]);
  const expected = QUOTA_NAMES.map((name) => {
    const { limits, reason } = QUOTAS[name];
    return [name, ...PLANS.map((plan) => shown(limits[plan])), reason];
  });
  expect(rows).toEqual(expected);
});

test('every plan allows at least as much as the one below it, and the greatest all', () => {
  for (const { limits } of Object.values(QUOTAS)) {
    const rising = [limits.free, limits.solo, limits.team].map((limit) => limit ?? Infinity);
    expect(rising).toEqual(rising.toSorted((a, b) => a - b));
    expect(limits.enterprise).toBeNull();
  }
});

test('names that every object has are no quotas', () => {
  for (const name of ['toString', '__proto__', 'constructor', '', 'Users']) expect(isQuota(name)).toBe(false);
});
