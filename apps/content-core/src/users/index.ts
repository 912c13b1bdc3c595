export { usersApi } from './users-api.js';
