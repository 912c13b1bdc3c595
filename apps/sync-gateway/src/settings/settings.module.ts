import { type DynamicModule, Module } from '@nestjs/common';
import { SettingsController } from './settings.controller.js';

/** The settings of protocol 1. */
@Module({ controllers: [SettingsController] })
export class SettingsModule {
  /** @param ground gives the database, the keys and the bounds */
  static on(ground: DynamicModule): DynamicModule {
    return { module: SettingsModule, imports: [ground] };
  }
}
