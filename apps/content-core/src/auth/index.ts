export { AuthModule } from './auth.module.js';
export { principalOf, Public } from './bearer.guard.js';
export { RestErrorFilter } from './rest-error.filter.js';
