import { specification } from '@atomo-cc/event-store/testing';
import type { NewEvent } from '@atomo-cc/events';
import { belongsTo, date, defineSchema, email, text, type RecordValues } from '@atomo-cc/schema';
import { SHOP } from '../testing/index.js';
import { decideCreate, decideUpdate, evolve, type RecordState } from './record.js';

const ID = '01890000-0000-7000-8000-000000000001';
const item = SHOP.models.find(({ name }) => name === 'Item')!;
const created = (data: RecordValues): NewEvent => ({ type: 'Item.created', schemaVersion: 1, data });
const updated = (data: RecordValues): NewEvent => ({ type: 'Item.updated', schemaVersion: 1, data });

/** A command writes these values: to a new record, or to the one there is. */
const given = specification<RecordState | null, RecordValues, NewEvent>({
  decide: (values, state) => (state ? decideUpdate(item, ID, state, values) : decideCreate(item, ID, values)),
  evolve,
  initialState: () => null,
});

test('given nothing, when a record is created, then one event has the values that were given', () => {
  given([])
    .when({ title: 'Lamp', price: null })
    .then([created({ title: 'Lamp', price: null })]);
});

test('given a record, when fields are changed, then one event has those that differ', () => {
  given([created({ title: 'Lamp', price: 5, inStock: false })])
    .when({ title: 'Lamp', price: 6, inStock: true })
    .then([updated({ price: 6, inStock: true })]);
});

test('given a record, when it is set to what it is, then nothing happens', () => {
  const lamp = given([created({ title: 'Lamp', price: 5 }), updated({ price: 6 })]);
  lamp.when({ title: 'Lamp', price: 6 }).thenNothing();
  lamp.when({}).thenNothing();
});

test('given an empty field, when it is emptied, then nothing happens; given a value, it is emptied', () => {
  given([created({ title: 'Lamp' })])
    .when({ price: null })
    .thenNothing();
  given([created({ title: 'Lamp', price: null })])
    .when({ price: null })
    .thenNothing();
  given([created({ title: 'Lamp', price: 0 })])
    .when({ price: null })
    .then([updated({ price: null })]);
});

test.each([
  ['zero', 0],
  ['false', false],
  ['the empty text', ''],
])('%s is a value of its own, not the lack of one', (_name, value) => {
  given([created({ title: 'Lamp' })])
    .when({ order: value })
    .then([updated({ order: value })]);
});

test('the record after its events has their values and counts them', () => {
  const { state } = given([
    created({ title: 'Lamp', price: 5 }),
    updated({ price: null }),
    updated({ title: 'Big lamp' }),
  ]);
  expect(state).toEqual({ version: 3, values: { title: 'Big lamp', price: null } });
});

describe('what is personal', () => {
  const [person, thing] = defineSchema({
    models: {
      Person: {
        fields: {
          name: text().personal(),
          mail: email().personal(),
          born: date().personal(),
          note: text(),
          boss: belongsTo('Person'),
        },
      },
      Thing: { fields: { title: text() } },
    },
  }).models;

  test('is named beside the values, and is about the record itself', () => {
    const values = { name: 'Ada', note: 'x', bossId: null, mail: null };
    expect(decideCreate(person!, ID, values)).toEqual([
      {
        type: 'Person.created',
        schemaVersion: 1,
        data: values,
        personal: { subject: `Person-${ID}`, fields: ['name', 'mail'] },
      },
    ]);
  });

  test('of a change is what really changes', () => {
    const state = { version: 1, values: { name: 'Ada', mail: 'a@b.c' } };
    expect(decideUpdate(person!, ID, state, { name: 'Ada', mail: null })).toMatchObject([
      { data: { mail: null }, personal: { subject: `Person-${ID}`, fields: ['mail'] } },
    ]);
  });

  test('is absent where nothing is', () => {
    for (const event of [
      ...decideCreate(person!, ID, { note: 'x' }),
      ...decideUpdate(person!, ID, { version: 1, values: { name: 'Ada' } }, { name: 'Ada', note: 'y' }),
      ...decideCreate(thing!, ID, { title: 'x' }),
    ]) {
      expect(event).not.toHaveProperty('personal');
    }
  });
});
