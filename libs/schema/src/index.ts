export {
  belongsTo,
  boolean,
  date,
  defineSchema,
  email,
  enumeration,
  Field,
  number,
  NumberField,
  SCHEMA_ERRORS,
  text,
  TextField,
} from './dsl.js';
export type { ModelDeclaration } from './dsl.js';
export { columnOf, DEFAULT_MAX_LENGTH, inputName, modelNamed, snakeCase } from './model.js';
export type { FieldDefinition, FieldType, ModelDefinition, SchemaDefinition } from './model.js';
export { isCalendarDate, validateInput } from './validation.js';
export type { FieldValue, InputFault, RecordValues } from './validation.js';
