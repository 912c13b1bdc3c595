import { apiError } from '@atomo-cc/kernel';

/**
 * Conditions on places, which are stored as JSON: `{"lat": 48.21, "lng": 16.37}` in degrees. They are decided on a sphere, in plain
 * SQL, so no extension is needed; no index helps, and they look at every record that the rest of a condition leaves.
 */

/**
 * Metres: the mean radius R1 of the earth, (2a + b) / 3 of the ellipsoid of WGS 84 and GRS 80 (H. Moritz, Geodetic Reference System
 * 1980, Journal of Geodesy 74, 2000). Along the real earth a distance is up to 0.6 % longer or shorter.
 */
export const EARTH_RADIUS_M = 6_371_008.7714;

/** What a place is compared with, by the operator: each value that it needs, with what the API says of it. */
export const PLACE_OPERATORS = {
  near: {
    description: 'Not farther from a point than a distance, as the crow flies.',
    values: {
      lat: 'Degrees north, -90 to 90.',
      lng: 'Degrees east, -180 to 180.',
      withinMeters: 'Metres, 0 or more.',
    },
  },
  within: {
    description: 'In a box between two parallels and two meridians, or on its edge.',
    values: {
      south: 'Degrees north, -90 to 90.',
      west: 'Degrees east, -180 to 180. East of `east` where the box crosses the antimeridian.',
      north: 'Degrees north, -90 to 90.',
      east: 'Degrees east, -180 to 180.',
    },
  },
} as const;

type Operator = keyof typeof PLACE_OPERATORS;
type Values<Of extends Operator> = Readonly<Record<keyof (typeof PLACE_OPERATORS)[Of]['values'], number>>;

/** Whether places are compared by it. */
export function isPlaceOperator(operator: string): operator is Operator {
  return Object.hasOwn(PLACE_OPERATORS, operator);
}

/**
 * The condition in SQL; unknown, as of any field, where there is no place.
 * @param column that of the field
 * @param place adds a value to the statement and answers its place, `$3`
 * @throws CodedError VALIDATION_ERROR that says what to give instead
 */
export function placeCondition(
  column: string,
  operator: Operator,
  operand: unknown,
  place: (value: number) => string,
): string {
  const add = (value: number) => `${place(value)}::float8`;
  const [lat, lng] = [degrees(column, 'lat', 90), degrees(column, 'lng', 180)];
  if (operator === 'near') {
    const near = operand as Values<'near'>;
    latitude('near.lat', near.lat);
    longitude('near.lng', near.lng);
    if (!isNumber(near.withinMeters) || near.withinMeters < 0)
      throw refused(`near.withinMeters is ${near.withinMeters}: give a distance in metres, 0 or more.`);
    const [lat0, lng0] = [add(near.lat), add(near.lng)];
    // The haversines of the two angles are compared, of which the formula gives one: no root or arc that rounding could lead out of.
    const angle = near.withinMeters / EARTH_RADIUS_M;
    const most = angle >= Math.PI ? 1 + Number.EPSILON * 8 : Math.sin(angle / 2) ** 2;
    return `power(sind((${lat} - ${lat0}) / 2), 2) + cosd(${lat0}) * cosd(${lat}) * power(sind((${lng} - ${lng0}) / 2), 2) <= ${add(most)}`;
  }
  const box = operand as Values<'within'>;
  latitude('within.south', box.south);
  longitude('within.west', box.west);
  latitude('within.north', box.north);
  longitude('within.east', box.east);
  if (box.south > box.north)
    throw refused(
      `within.south, ${box.south}, is north of within.north, ${box.north}: swap them. Only west may be east of east, where the box crosses the antimeridian.`,
    );
  const [south, west, north, east] = [add(box.south), add(box.west), add(box.north), add(box.east)];
  const between = `${lat} between ${south} and ${north}`;
  if (box.west > box.east) return `${between} and (${lng} >= ${west} or ${lng} <= ${east})`;
  // 180 and -180 are one meridian.
  const other = `(abs(${lng}) = 180 and -${lng} between ${west} and ${east})`;
  return `${between} and (${lng} between ${west} and ${east} or ${other})`;
}

/**
 * One of the two numbers of a place. What a field held as JSON before it was one of places may be anything, and is none; as jsonb is
 * ordered, nothing but numbers lies between two numbers.
 */
function degrees(column: string, name: 'lat' | 'lng', most: number): string {
  const value = `${column}->'${name}'`;
  return `(case when ${value} between '-${most}'::jsonb and '${most}'::jsonb then (${value})::float8 end)`;
}

function isNumber(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value);
}

function latitude(name: string, value: number): void {
  if (!isNumber(value) || Math.abs(value) > 90)
    throw refused(`${name} is ${value}: give degrees north of the equator, -90 to 90.`);
}

function longitude(name: string, value: number): void {
  if (isNumber(value) && Math.abs(value) <= 180) return;
  const same = isNumber(value)
    ? `, such as ${Number((((((value + 180) % 360) + 360) % 360) - 180).toFixed(6))} for ${value}`
    : '';
  throw refused(`${name} is ${value}: give degrees east of Greenwich, -180 to 180${same}.`);
}

function refused(message: string): Error {
  return apiError('VALIDATION_ERROR', message);
}
