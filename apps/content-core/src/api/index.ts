export { adminOnly } from './admin-only.js';
export { connectionOf, decodeCursor, DEFAULT_PAGE, encodeCursor, MAX_PAGE, PageInfo, pageSize } from './paging.js';
export type { ApiContext, ApiPart } from './part.js';
export { DateScalar, DateTimeScalar, JsonScalar } from './scalars.js';
export { argumentsKeyOf, argumentsOf, mergeSelections, selectionAt, selectionOf } from './selection.js';
export type { Selection } from './selection.js';
export { buildApiSchema, serveApi } from './server.js';
export { Subscribers } from './subscribers.js';
