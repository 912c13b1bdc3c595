import fs from 'node:fs';
import path from 'node:path';
import type { NewEvent } from './events.js';
import { ATOMO_EVENTS, EventCatalogue } from './upcasting.js';

const GOLDEN = path.join(import.meta.dirname, 'golden');
const golden = fs
  .readdirSync(GOLDEN)
  .map((file) => JSON.parse(fs.readFileSync(path.join(GOLDEN, file), 'utf8')) as NewEvent);
const goldenOf = (type: string, version: number) =>
  golden.filter((event) => event.type === type && event.schemaVersion === version);

describe('the golden events', () => {
  it('are one for each version of each type there is, and no other', () => {
    const wanted = [...ATOMO_EVENTS.versions()].flatMap(([type, current]) =>
      Array.from({ length: current }, (_, index) => `${type} ${index + 1}`),
    );
    const found = golden.map(({ type, schemaVersion }) => `${type} ${schemaVersion}`);
    expect(found.toSorted()).toEqual(wanted.toSorted());
  });

  it.each(golden.map((event) => [event.type, event.schemaVersion, event] as const))(
    '%s of version %i reads as the one of today',
    (type, _version, event) => {
      const today = goldenOf(type, ATOMO_EVENTS.versions().get(type)!)[0];
      expect(ATOMO_EVENTS.upcast(event)).toEqual(today);
    },
  );
});

describe('a catalogue', () => {
  const moved = new EventCatalogue({
    'Parcel.moved': {
      version: 3,
      upcasters: {
        1: ({ kilos, ...rest }) => ({ ...rest, grams: (kilos as number) * 1000 }),
        2: ({ grams, ...rest }) => ({ ...rest, weight: { grams } }),
      },
    },
    '*.weighed': { version: 2, upcasters: { 1: (data) => ({ ...data, isNew: true }) } },
  });
  const event = (type: string, schemaVersion: number, data: NewEvent['data']) => ({ type, schemaVersion, data });
  const code = (type: string, version: unknown) => {
    try {
      moved.upcast({ ...event(type, version as number, {}), position: 7n });
      return null;
    } catch (error) {
      return error;
    }
  };

  it('leads from each version over all between to that of today', () => {
    const today = event('Parcel.moved', 3, { to: 'Rome', weight: { grams: 2000 } });
    expect(moved.upcast(event('Parcel.moved', 1, { to: 'Rome', kilos: 2 }))).toEqual(today);
    expect(moved.upcast(event('Parcel.moved', 2, { to: 'Rome', grams: 2000 }))).toEqual(today);
  });

  it('answers an event of today as it is, and changes none that it is given', () => {
    const today = event('Parcel.moved', 3, {});
    expect(moved.upcast(today)).toBe(today);
    const old = Object.freeze(event('Parcel.moved', 2, Object.freeze({ grams: 1 })));
    moved.upcast(old);
    expect(old.data).toEqual({ grams: 1 });
  });

  it("names fields as they are called today, after the shape is today's", () => {
    const renamed = moved.withFormerNames(new Map([['Crate', new Map([['isNew', 'fresh']])]]));
    expect(renamed.upcast(event('Crate.weighed', 1, {}))).toEqual(event('Crate.weighed', 2, { fresh: true }));
    expect(renamed.upcast(event('Box.weighed', 1, {}))).toEqual(event('Box.weighed', 2, { isNew: true }));
    const today = event('Crate.weighed', 2, { fresh: false });
    expect(renamed.upcast(today)).toBe(today);
  });

  it('knows the kinds of models whatever their names', () => {
    expect(moved.upcast(event('Crate.weighed', 1, {}))).toEqual(event('Crate.weighed', 2, { isNew: true }));
    expect(moved.upcast(event('Box2.weighed', 2, {}))).toEqual(event('Box2.weighed', 2, {}));
  });

  it.each(['Parcel.lost', 'Parcel', '', 'constructor', 'Parcel.moved.weighed', 'weighed'])(
    'refuses type %j',
    (type) => {
      expect(code(type, 1)).toMatchObject({ code: 'EVENT_TYPE_UNKNOWN', details: { type, position: '7' } });
    },
  );

  it.each([4, 0, -1, 1.5, Number.NaN, null])('refuses version %p', (version) => {
    expect(code('Parcel.moved', version)).toMatchObject({
      code: 'EVENT_VERSION_UNKNOWN',
      details: { type: 'Parcel.moved', schemaVersion: version, position: '7' },
    });
  });

  it.each([
    ['a gap', { version: 3, upcasters: { 2: (data: NewEvent['data']) => data } }],
    ['no upcaster', { version: 2, upcasters: {} }],
    ['one too many', { version: 1, upcasters: { 1: (data: NewEvent['data']) => data } }],
  ])('is not made of a shape with %s', (_name, shape) => {
    expect(() => new EventCatalogue({ X: shape })).toThrow(TypeError);
  });
});
