import { Body, Controller, Delete, Get, HttpCode, Put, Query, UseGuards } from '@nestjs/common';
import { AppDatabase } from '@atomo-cc/platform/postgres';
import {
  FileBody,
  FileQuery,
  parsePayload,
  REST_BASE,
  type SettingList,
  type SettingView,
  type SettingWithContent,
} from '@atomo-cc/sync-protocol';
import { Bounds } from '../bounds/index.js';
import { Bearer, Needs, requirePath, type StoreKey, StoreKeyGuard } from '../credentials/index.js';
import { deleteSettings, listSettings, readSetting, writeSetting } from './settings.js';

/** What the plugin of protocol 1 keeps of its configuration folder; paths are relative to that folder. */
@Controller(`${REST_BASE}/settings`)
@UseGuards(StoreKeyGuard)
export class SettingsController {
  constructor(
    private readonly database: AppDatabase,
    private readonly bounds: Bounds,
  ) {}

  /** One setting with its content when `path` is given; else all of them without. */
  @Get()
  @Needs('read')
  async read(
    @Bearer() key: StoreKey,
    @Query() query: Record<string, unknown>,
  ): Promise<SettingWithContent | SettingList> {
    await this.bounds.takeSlowly(key.id, 1, 0);
    if (!query['path']) return this.database.transaction(key.tenantId, (tx) => listSettings(tx, key));
    const { path } = parsePayload(FileQuery, query);
    requirePath(key, path);
    return this.database.transaction(key.tenantId, (tx) => readSetting(tx, key, path));
  }

  @Put()
  @Needs('write')
  async write(@Bearer() key: StoreKey, @Body() body: unknown): Promise<SettingView> {
    const { path, content } = parsePayload(FileBody, body);
    requirePath(key, path);
    await this.bounds.takeSlowly(key.id, 1, content.length);
    return this.database.transaction(key.tenantId, (tx) => writeSetting(tx, key, path, content));
  }

  @Delete('all')
  @Needs('write')
  async deleteAll(@Bearer() key: StoreKey): Promise<{ deleted: number }> {
    await this.bounds.takeSlowly(key.id, 1, 0);
    return { deleted: await this.database.transaction(key.tenantId, (tx) => deleteSettings(tx, key, null)) };
  }

  @Delete()
  @Needs('write')
  @HttpCode(204)
  async delete(@Bearer() key: StoreKey, @Query() query: unknown): Promise<void> {
    const { path } = parsePayload(FileQuery, query);
    requirePath(key, path);
    await this.bounds.takeSlowly(key.id, 1, 0);
    await this.database.transaction(key.tenantId, (tx) => deleteSettings(tx, key, path));
  }
}
