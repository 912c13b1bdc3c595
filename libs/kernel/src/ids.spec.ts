import { isUuid, tenantId, uuidv5, uuidv7 } from './ids.js';

const millisecondsOf = (id: string) => Number.parseInt(id.replaceAll('-', '').slice(0, 12), 16);

describe('uuidv7', () => {
  it('has the version and the variant of RFC 9562', () => {
    for (let n = 0; n < 200; n += 1)
      expect(uuidv7()).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  });

  it('begins with the milliseconds', () => {
    const now = Date.now() + 1_000;
    expect(millisecondsOf(uuidv7(now))).toBe(now);
  });

  it('keeps order and uniqueness inside a millisecond, also when the counter runs over', () => {
    const now = Date.now() + 10_000;
    const ids = Array.from({ length: 10_000 }, () => uuidv7(now));
    expect(new Set(ids).size).toBe(ids.length);
    expect([...ids].sort()).toEqual(ids);
    // The counter has 4,096 values and starts in its lower half: two or three milliseconds were borrowed.
    expect(millisecondsOf(ids.at(-1)!) - now).toBeGreaterThanOrEqual(2);
  });

  it('keeps the order when the clock goes back', () => {
    const now = Date.now() + 20_000;
    const before = uuidv7(now);
    const ids = [before, uuidv7(now - 5_000), uuidv7(now - 4_000), uuidv7(now), uuidv7(now + 1)];
    expect([...ids].sort()).toEqual(ids);
    expect(new Set(ids).size).toBe(ids.length);
  });
});

describe('uuidv5', () => {
  it('gives the vector of RFC 9562, appendix A.4', () => {
    expect(uuidv5('6ba7b810-9dad-11d1-80b4-00c04fd430c8', 'www.example.com')).toBe(
      '2ed6657d-e927-568b-95e1-2665a8aea6a2',
    );
  });

  it('differs by namespace and by name, and takes names of any characters', () => {
    const a = '00000000-0000-7000-8000-000000000001';
    const b = '00000000-0000-7000-8000-000000000002';
    expect(new Set([uuidv5(a, 'x'), uuidv5(b, 'x'), uuidv5(a, 'y'), uuidv5(a, 'é')]).size).toBe(4);
    expect(uuidv5(a, 'é')).toBe(uuidv5(a, 'é'));
  });

  it.each(['', 'x', '6BA7B810-9DAD-11D1-80B4-00C04FD430C8'])('refuses %j as a namespace', (namespace) => {
    expect(() => uuidv5(namespace, 'x')).toThrow(RangeError);
  });
});

describe('reading ids', () => {
  it.each([
    ['00000000-0000-7000-8000-000000000001', true],
    ['00000000-0000-7000-8000-00000000000A', false],
    ['00000000-0000-7000-8000-000000000001\n', false],
    ['000000000000700080000000000000001', false],
    [null, false],
    [7, false],
  ])('%j is a UUID: %s', (value, expected) => {
    expect(isUuid(value)).toBe(expected);
    if (typeof value !== 'string') return;
    if (expected) expect(tenantId(value)).toBe(value);
    else expect(() => tenantId(value)).toThrow(RangeError);
  });
});
