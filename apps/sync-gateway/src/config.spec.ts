import { loadGatewayConfig } from './config.js';

const given = { DATABASE_URL: 'postgres://localhost/atomo', REDIS_URL: 'redis://localhost' };

describe('the configuration', () => {
  it('has a development master key in embedded mode only', () => {
    expect(loadGatewayConfig({ ...given, ATOMO_MODE: 'embedded' })).toMatchObject({
      GATEWAY_MASTER_KEY: 'sk_admin_dev',
      SYNC_GATEWAY_PORT: 3100,
    });
    expect(() => loadGatewayConfig(given)).toThrow('GATEWAY_MASTER_KEY');
    expect(() => loadGatewayConfig({ ...given, GATEWAY_MASTER_KEY: 'sk_admin_dev' })).toThrow('GATEWAY_MASTER_KEY');
  });

  it('refuses a master key of another form, which no request could ever match', () => {
    expect(() => loadGatewayConfig({ ...given, GATEWAY_MASTER_KEY: 'secret' })).toThrow('sk_admin_');
    const key = `sk_admin_${'x'.repeat(24)}`;
    expect(loadGatewayConfig({ ...given, GATEWAY_MASTER_KEY: key }).GATEWAY_MASTER_KEY).toBe(key);
  });
});
