import { runService } from '@atomo-cc/platform/lifecycle';
import { loadGatewayConfig } from './config.js';
import { gatewayService } from './service.js';

void runService(() => gatewayService(loadGatewayConfig()));
