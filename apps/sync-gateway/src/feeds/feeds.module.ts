import { type DynamicModule, Module } from '@nestjs/common';
import { Contents } from '../contents/index.js';
import { Feeds } from './feeds.js';
import { HeadPoll } from './head-poll.js';

/** Provides what readers of stores hear, and the bytes of files. */
@Module({ providers: [Contents, Feeds, HeadPoll], exports: [Contents, Feeds] })
export class FeedsModule {
  /** @param ground gives the database and the sockets */
  static on(ground: DynamicModule): DynamicModule {
    return { module: FeedsModule, imports: [ground] };
  }
}
