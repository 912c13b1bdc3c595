export {
  connectionOf,
  connectionType,
  decodeCursor,
  DEFAULT_PAGE,
  encodeCursor,
  MAX_PAGE,
  PageInfo,
  pageSize,
} from './paging.js';
export { byOf } from './part.js';
export type { ApiContext, ApiPart, RolePart } from './part.js';
export { RoleSchemas } from './role-schemas.js';
export { DateScalar, DateTimeScalar, JsonScalar, required } from './scalars.js';
export { argumentsKeyOf, argumentsOf, mergeSelections, selectionAt, selectionOf } from './selection.js';
export type { Selection } from './selection.js';
export type { ApiServerOptions } from './operations.js';
export { serveApi } from './server.js';
export { Subscribers } from './subscribers.js';
export { DirectOperation, READS_TEXT, type TextReader } from './direct-answer.js';
export { TRUSTED_DOCUMENTS_ERRORS, TrustedDocuments } from './trusted-documents.js';
