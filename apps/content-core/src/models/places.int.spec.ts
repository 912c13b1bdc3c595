import { eventStoreMigrations } from '@atomo-cc/event-store';
import { belongsTo, defineSchema, geoPoint, hasMany, text, type GeoPoint } from '@atomo-cc/schema';
import { AppDatabase } from '@atomo-cc/platform/postgres';
import { aDatabase, aSeed, seeded, type TestDatabase } from '@atomo-cc/testing';
import { anApi, aPrincipal, callers, SHOP_TENANTS, type Json, type TestApi } from '../testing/index.js';
import { createModelTables } from './model-tables.js';
import { modelsApi } from './models-api.js';
import { EARTH_RADIUS_M } from './places.js';
import { compileChanged } from './query-compiler.js';
import { readerOf } from './record-access.js';

const [OURS, THEIRS] = SHOP_TENANTS;

const MAP = defineSchema({
  models: {
    Route: { fields: { name: text(), stops: hasMany('Stop') } },
    Stop: {
      fields: { name: text(), place: geoPoint(), route: belongsTo('Route') },
      access: { read: { Viewer: ['name'] } },
    },
  },
});
const [, stopModel] = MAP.models;

/** Where a formula is likely to be wrong: poles, both names of the antimeridian, the other side of the earth. */
const CORNERS: readonly GeoPoint[] = [
  { lat: 0, lng: 0 },
  { lat: 0, lng: 180 },
  { lat: 0, lng: -180 },
  { lat: 90, lng: 0 },
  { lat: 90, lng: 135 },
  { lat: -90, lng: -180 },
  { lat: 48.2082, lng: 16.3738 },
  { lat: -48.2082, lng: -163.6262 },
  { lat: -16.5, lng: 179.9 },
  { lat: -16.5, lng: -179.9 },
];

let database: TestDatabase;
let api: TestApi;
let random: () => number;
let places: GeoPoint[];

beforeAll(async () => {
  database = await aDatabase(eventStoreMigrations);
  await createModelTables(database.url, MAP);
  api = await anApi([modelsApi(MAP, database.app)]);
  random = seeded(aSeed('places'));
  // As many near Vienna as anywhere: most distances between places at random are thousands of kilometres.
  const anywhere = () => ({ lat: random() * 180 - 90, lng: random() * 360 - 180 });
  const around = () => ({ lat: 48.2 + random() * 0.1, lng: 16.3 + random() * 0.1 });
  places = [...CORNERS, ...Array.from({ length: 60 }, (_, n) => (n % 2 === 0 ? anywhere() : around()))];
  await createStops(places.map((place, n) => ({ name: String(n), place })));
  await createStops([{ name: 'nowhere' }]);
  await createStops([{ name: 'theirs', place: places[0] }], THEIRS);
});

afterEach(() => jest.restoreAllMocks());

afterAll(async () => {
  await api?.close();
  await database?.drop();
});

async function createStops(inputs: readonly object[], tenant = OURS): Promise<string[]> {
  const document = 'mutation ($inputs: [CreateStopInput!]!) { createStops(inputs: $inputs) { nodes { id } } }';
  return (await api.data(document, { inputs }, tenant)).createStops.nodes.map(({ id }: Json) => id);
}

const FIND = `query ($where: StopWhere, $after: String) {
  stops(where: $where, first: 100, after: $after) { nodes { name } totalCount } }`;
const find = async (where: object): Promise<string[]> => {
  const { stops } = await api.data(FIND, { where });
  expect(stops.totalCount).toBe(stops.nodes.length);
  return stops.nodes.map(({ name }: Json) => name).toSorted();
};
const named = (isIn: (place: GeoPoint) => boolean) =>
  places.flatMap((place, n) => (isIn(place) ? [String(n)] : [])).toSorted();

/** Metres along a great circle, by the angle between the vectors: another formula than the one that is tested. */
function distance(a: GeoPoint, b: GeoPoint): number {
  const vector = ({ lat, lng }: GeoPoint) => {
    const [phi, lambda] = [(lat * Math.PI) / 180, (lng * Math.PI) / 180];
    return [Math.cos(phi) * Math.cos(lambda), Math.cos(phi) * Math.sin(lambda), Math.sin(phi)] as const;
  };
  const [[ax, ay, az], [bx, by, bz]] = [vector(a), vector(b)];
  const cross = Math.hypot(ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx);
  return EARTH_RADIUS_M * Math.atan2(cross, ax * bx + ay * by + az * bz);
}

test('near finds what is not farther than that, to a millimetre', async () => {
  expect(distance({ lat: 0, lng: 0 }, { lat: 0, lng: 1 })).toBeCloseTo(111_195.08, 2);
  for (let round = 0; round < 60; round += 1) {
    const [center, other] = [0, 1].map(() => places[Math.floor(random() * places.length)]!) as [GeoPoint, GeoPoint];
    const exact = distance(center, other);
    for (const withinMeters of [exact + 0.001, Math.max(exact - 0.001, 0)]) {
      // Whatever lies on the edge but the one it goes through may be rounded either way.
      // At the other side of the earth the sine hardly changes, and a metre is lost in it.
      const rounded = withinMeters > 20_015_000 ? 10 : 0.0005;
      const isEdge = (place: GeoPoint) => Math.abs(distance(center, place) - withinMeters) < rounded;
      const found = await find({ place: { near: { ...center, withinMeters } } });
      const edge = named(isEdge);
      const without = (names: readonly string[]) => names.filter((name) => !edge.includes(name));
      expect(without(found)).toEqual(without(named((place) => distance(center, place) <= withinMeters)));
      expect(found).not.toContain('nowhere');
    }
  }
  // One point has several names at a pole and at the antimeridian.
  expect(await find({ place: { near: { lat: 90, lng: 7, withinMeters: 0.001 } } })).toEqual(['3', '4']);
  expect(await find({ place: { near: { lat: 0, lng: 180, withinMeters: 0.001 } } })).toEqual(['1', '2']);
  expect(await find({ place: { near: { lat: 0, lng: 0, withinMeters: 0 } } })).toEqual(['0']);
  expect(await find({ place: { near: { lat: 10, lng: 10, withinMeters: 1e12 } } })).toHaveLength(places.length);
});

test('within finds what is in the box, also across the antimeridian', async () => {
  const any = (most: number) => (random() < 0.2 ? (random() < 0.5 ? -most : most) : random() * 2 * most - most);
  for (let round = 0; round < 60; round += 1) {
    const [south, north] = [any(90), any(90)].toSorted((a, b) => a - b) as [number, number];
    const [west, east] = [any(180), any(180)];
    // To the east from the western edge; 360 degrees on is the same meridian.
    const width = west <= east ? east - west : east - west + 360;
    const isIn = ({ lat, lng }: GeoPoint) =>
      lat >= south &&
      lat <= north &&
      [lng, lng + 360, ...(lng === 180 ? [-180] : [])].some((at) => at >= west && at <= west + width);
    expect({ west, east, found: await find({ place: { within: { south, west, north, east } } }) }).toEqual({
      west,
      east,
      found: named(isIn),
    });
  }
  const fiji = { south: -17, west: 179, north: -16, east: -179 };
  expect(await find({ place: { within: fiji } })).toEqual(['8', '9']);
  expect(await find({ place: { within: { ...fiji, west: -179, east: 179 } } })).not.toContain('8');
  for (const lng of [180, -180])
    expect(await find({ place: { within: { south: 0, west: lng, north: 0, east: lng } } })).toEqual(['1', '2']);
});

test('all operators of one place must hold; those without a place are found by not and isNull', async () => {
  const near = { lat: 0, lng: 180, withinMeters: 1 };
  const east = { south: -90, west: 0, north: 90, east: 179 };
  expect(await find({ place: { near, within: east } })).toEqual([]);
  expect(await find({ or: [{ place: { near, isNull: false } }, { place: { isNull: true } }] })).toEqual([
    '1',
    '2',
    'nowhere',
  ]);
  expect(await find({ not: { place: { within: { ...east, west: -180, east: 180 } } } })).toEqual(['nowhere']);
});

test('on related records, below records, in groups and as of a time, each in one statement', async () => {
  const document = 'mutation { createRoute(input: { name: "ring" }) { id createdAt } }';
  const { id: routeId } = (await api.data(document)).createRoute;
  const [id] = await createStops([
    { name: 'on', place: { lat: 1, lng: 2 }, routeId },
    { name: 'off', place: { lat: 1, lng: 3 }, routeId },
  ]);
  try {
    const place = { near: { lat: 1, lng: 2, withinMeters: 10 } };
    const read = jest.spyOn(AppDatabase.prototype, 'read');
    const below = `query ($place: GeoPointFilter) {
      routes(where: { stops: { some: { place: $place } } }) { nodes { name stops(where: { place: $place }) { nodes { name } totalCount } } } }`;
    const { routes } = await api.data(below, { place });
    expect(routes.nodes).toEqual([{ name: 'ring', stops: { nodes: [{ name: 'on' }], totalCount: 1 } }]);
    const grouped =
      'query ($place: GeoPointFilter) { stopAggregate(where: { place: $place }, groupBy: [name]) { count group { name } } }';
    expect((await api.data(grouped, { place })).stopAggregate).toEqual([{ count: 1, group: { name: 'on' } }]);
    expect(read.mock.calls.filter(([, sql]) => sql.includes('model_'))).toHaveLength(2);

    await database.asOwner(
      `insert into history_stop (tenant_id, id, version, valid_from, valid_to, created_at, updated_at, name, place)
       values ($1, $2, 1, '2020-01-01', 'infinity', '2020-01-01', '2020-01-01', 'then', '{"lat": 1, "lng": 2}')`,
      [OURS, id],
    );
    const past =
      'query ($place: GeoPointFilter) { stops(where: { place: $place }, asOf: "2020-02-02T00:00:00Z") { nodes { name } } }';
    expect((await api.data(past, { place })).stops.nodes).toEqual([{ name: 'then' }]);
    expect((await api.data(past, { place: { near: { lat: 2, lng: 2, withinMeters: 10 } } })).stops.nodes).toEqual([]);

    // As a subscriber is told.
    const changed = async (filter: object) => {
      const change = { id: id!, version: 1, mayLeave: true };
      const { text: sql, parameters } = compileChanged(
        readerOf(MAP, aPrincipal(OURS)),
        stopModel!,
        { place: filter },
        new Map([['name', new Map()]]),
        [change],
      );
      const [row] = await database.app.read<{ nodes: object }>(OURS, sql, parameters);
      return row!.nodes;
    };
    expect(await changed(place)).toEqual({ [id!]: { name: 'on' } });
    expect(await changed({ near: { lat: 1, lng: 3, withinMeters: 10 } })).toEqual({});
  } finally {
    await database.asOwner(`delete from model_stop where name in ('on', 'off')`);
  }
});

test.each([
  [{ near: { lat: 90.5, lng: 0, withinMeters: 1 } }, /near\.lat is 90\.5: .* -90 to 90/],
  [{ near: { lat: 0, lng: 190.1, withinMeters: 1 } }, /near\.lng is 190\.1: .* such as -169\.9 for 190\.1/],
  [{ near: { lat: 0, lng: -541, withinMeters: 1 } }, /such as 179 for -541/],
  [{ near: { lat: 0, lng: 0, withinMeters: -1 } }, /withinMeters is -1: give a distance in metres, 0 or more/],
  [{ near: { lat: 0, lng: 0 } }, /withinMeters/],
  [{ near: null }, /Use isNull/],
  [{ within: { south: 2, west: 0, north: 1, east: 0 } }, /within\.south, 2, is north of within\.north, 1: swap them/],
  [{ within: { south: -91, west: 0, north: 1, east: 0 } }, /within\.south is -91/],
  [{ within: { south: 0, west: 0, north: 1, east: 181 } }, /within\.east is 181/],
  [{ equals: { lat: 0, lng: 0 } }, /equals/],
])('%j is refused with what to do', async (place, message) => {
  expect((await api.ask(FIND, { where: { place } })).errors).toMatchObject([
    { message: expect.stringMatching(message), extensions: { code: 'VALIDATION_ERROR' } },
  ]);
});

test('what a field held as JSON before it was one of places is at no place, and no fault', async () => {
  const values = [
    '"x"',
    '[1]',
    '{"lat": "1", "lng": 1}',
    '{"lat": 1}',
    '{"lat": 1e308, "lng": -1e308}',
    '{"lat": 179, "lng": -179}',
    '{"lat": true, "lng": []}',
    '7',
  ];
  const ids = await createStops(values.map(() => ({ name: 'odd' })));
  for (const [n, value] of values.entries())
    await database.asOwner('update model_stop set place = $2::jsonb where id = $1', [ids[n], value]);
  const near = { lat: 1, lng: 1, withinMeters: 1 };
  expect(await find({ name: { equals: 'odd' }, place: { near } })).toEqual([]);
  expect(await find({ name: { equals: 'odd' }, place: { near: { ...near, withinMeters: 1e9 } } })).toEqual([]);
  expect(
    await find({ name: { equals: 'odd' }, place: { within: { south: -9, west: 170, north: 9, east: -9 } } }),
  ).toEqual([]);
  await database.asOwner(`delete from model_stop where name = 'odd'`);
});

test('who may not read a place has no condition on it', async () => {
  callers.role = 'Viewer';
  try {
    const { errors } = await api.ask('{ stops(where: { place: { isNull: true } }) { nodes { name } } }');
    expect(errors).toMatchObject([{ extensions: { code: 'VALIDATION_ERROR' } }]);
    const { errors: known } = await api.ask('{ stops(where: { name: { equals: "1" } }) { nodes { name } } }');
    expect(known).toBeUndefined();
  } finally {
    callers.role = 'Admin';
  }
});
