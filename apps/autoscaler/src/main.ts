import { fileURLToPath } from 'node:url';
import { runService } from '@atomo-cc/platform/lifecycle';
import { autoscalerConfig } from './config.js';
import { autoscalerService } from './service.js';

// The worker is another app: it is run from where it is built, never imported.
const worker = fileURLToPath(new URL('../../historical-sync-worker/dist/main.js', import.meta.url));

void runService(() => autoscalerService(autoscalerConfig(), worker));
