import type { NewEvent } from '@atomo-cc/events';
import type { RecordValues } from '@atomo-cc/schema';
import { SHOP } from '../testing/index.js';
import { decideCreate, decideUpdate, evolve, type RecordState } from './record.js';

const item = SHOP.models.find(({ name }) => name === 'Item')!;
const created = (data: RecordValues): NewEvent => ({ type: 'Item.created', schemaVersion: 1, data });
const updated = (data: RecordValues): NewEvent => ({ type: 'Item.updated', schemaVersion: 1, data });

/** What the record is after what happened so far, and what a change of it decides. */
function given(...events: readonly NewEvent[]) {
  const state = events.reduce<RecordState | null>(evolve, null);
  return { state, when: (values: RecordValues) => decideUpdate(item, state!, values) };
}

test('given nothing, when a record is created, then one event has the values that were given', () => {
  expect(decideCreate(item, { title: 'Lamp', price: null })).toEqual([created({ title: 'Lamp', price: null })]);
});

test('given a record, when fields are changed, then one event has those that differ', () => {
  const { when } = given(created({ title: 'Lamp', price: 5, inStock: false }));
  expect(when({ title: 'Lamp', price: 6, inStock: true })).toEqual([updated({ price: 6, inStock: true })]);
});

test('given a record, when it is set to what it is, then nothing happens', () => {
  const { when } = given(created({ title: 'Lamp', price: 5 }), updated({ price: 6 }));
  expect(when({ title: 'Lamp', price: 6 })).toEqual([]);
  expect(when({})).toEqual([]);
});

test('given an empty field, when it is emptied, then nothing happens; given a value, it is emptied', () => {
  expect(given(created({ title: 'Lamp' })).when({ price: null })).toEqual([]);
  expect(given(created({ title: 'Lamp', price: null })).when({ price: null })).toEqual([]);
  expect(given(created({ title: 'Lamp', price: 0 })).when({ price: null })).toEqual([updated({ price: null })]);
});

test.each([
  ['zero', 0],
  ['false', false],
  ['the empty text', ''],
])('%s is a value of its own, not the lack of one', (_name, value) => {
  expect(given(created({ title: 'Lamp' })).when({ order: value })).toEqual([updated({ order: value })]);
});

test('the record after its events has their values and counts them', () => {
  const { state } = given(
    created({ title: 'Lamp', price: 5 }),
    updated({ price: null }),
    updated({ title: 'Big lamp' }),
  );
  expect(state).toEqual({ version: 3, values: { title: 'Big lamp', price: null } });
});
