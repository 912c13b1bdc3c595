import { uuidv7, type TenantId } from '@atomo-cc/kernel';
import type { EventMetadata, RecordedEvent } from '@atomo-cc/events';
import type { ModelDefinition } from '@atomo-cc/schema';
import type { TestDatabase } from '@atomo-cc/testing';
import { aPrincipal, SHOP, SHOP_TENANTS } from '../../testing/index.js';
import type { RecordCommands } from '../commands.js';

type Random = () => number;

function pick<Member>(random: Random, members: readonly Member[]): Member {
  return members[Math.floor(random() * members.length)]!;
}

const WORDS = ['lamp', 'Lampe', 'été', "O'Brien", '100 %', '"quoted"', '\\', '👩‍🚀', '', 'null'];

/** What may be written into each field of an item but the brand and the title. */
const ITEM_VALUES: Readonly<Record<string, (random: Random) => unknown>> = {
  contactMail: (random) => `ada${Math.floor(random() * 9)}@example.com`,
  price: (random) => pick(random, [0, 0.1, 1e-7, 12.5, 1e21, Math.floor(random() * 1000)]),
  inStock: (random) => random() < 0.5,
  arrivesOn: (random) => pick(random, ['2026-01-01', '1999-12-31', '2024-02-29', '9999-12-31']),
  size: (random) => pick(random, ['Small', 'Large']),
  order: (random) => pick(random, WORDS),
};

/** Some fields of an item with values, some of them emptied. */
export function itemInput(random: Random, brands: readonly string[]): Record<string, unknown> {
  const input: Record<string, unknown> = {};
  for (const [field, value] of Object.entries(ITEM_VALUES)) {
    if (random() < 0.4) input[field] = random() < 0.25 ? null : value(random);
  }
  if (random() < 0.3) input['brandId'] = brands.length === 0 || random() < 0.2 ? null : pick(random, brands);
  return input;
}

/**
 * Creates and changes brands and items of both tenants, many at a time, so that several events of a record are of one
 * moment; each step waits for the one before it.
 */
export async function randomHistory(commands: RecordCommands, random: Random, events: number): Promise<void> {
  const [brand, item] = SHOP.models as [ModelDefinition, ModelDefinition];
  const records = SHOP_TENANTS.map((tenant) => ({ tenant, brands: [] as string[], items: [] as string[] }));
  for (let done = 0; done < events;) {
    const size = 1 + Math.floor(random() * 12);
    done += size;
    await Promise.all(
      Array.from({ length: size }, async () => {
        const { tenant, brands, items } = pick(random, records);
        const whole = { idempotencyKey: null, context: { principal: aPrincipal(tenant), requestId: uuidv7() } };
        const title = pick(random, WORDS.filter(Boolean));
        const parent = brands.length > 0 && random() < 0.5 ? { parentId: pick(random, brands) } : {};
        const what = random();
        if (what < 0.1 || brands.length === 0) {
          brands.push((await commands.create({ ...whole, model: brand, input: { name: title, ...parent } })).id);
        } else if (what < 0.3 || items.length === 0) {
          const input = { title, ...itemInput(random, brands) };
          items.push((await commands.create({ ...whole, model: item, input })).id);
        } else {
          const isBrand = random() < 0.2;
          const input = isBrand ? { name: title, ...parent } : { title, ...itemInput(random, brands) };
          const id = pick(random, isBrand ? brands : items);
          await commands.update({ ...whole, model: isBrand ? brand : item, id, input, expectedVersion: null });
        }
      }),
    );
  }
}

/** The events of some models as a runner would hand them over, all tenants together in the order of the log. */
export async function eventsInLog(
  database: TestDatabase,
  models: readonly ModelDefinition[] = SHOP.models,
): Promise<RecordedEvent[]> {
  const rows = await database.asOwner<{
    position: string;
    tenant_id: TenantId;
    stream: string;
    stream_version: number;
    type: string;
    schema_version: number;
    data: Record<string, unknown>;
    metadata: EventMetadata;
    recorded_at: Date;
  }>('select * from event_log where split_part(type, $2, 1) = any($1) order by position', [
    models.map(({ name }) => name),
    '.',
  ]);
  return rows.map((row) => ({
    position: BigInt(row.position),
    tenant: row.tenant_id,
    stream: row.stream,
    streamVersion: row.stream_version,
    type: row.type,
    schemaVersion: row.schema_version,
    data: row.data,
    metadata: row.metadata,
    recordedAt: row.recorded_at,
  }));
}
