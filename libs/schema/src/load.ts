import { createRequire } from 'node:module';
import { basename } from 'node:path';
import { pathToFileURL } from 'node:url';
import { CodedError, isCodedError } from '@atomo-cc/kernel';
import type ts from 'typescript';
import { schemaInvalid, type SchemaFault } from './faults.js';
import { readSchema, type SchemaDefinition } from './model.js';

/**
 * Loads a schema from its file, in whichever form it is written: `export default defineSchema({ … })`, or plain TypeScript with
 * exported interfaces. Node strips the types and checks none. The compiler is loaded only for the plain form and for the places of faults.
 * @param file absolute
 * @throws CodedError SCHEMA_INVALID: the file's name, and every fault with its line and column as far as they are known
 */
export async function schemaFrom(file: string): Promise<SchemaDefinition> {
  let values: Readonly<Record<string, unknown>>;
  try {
    // Node's `require` loads modules of either kind, and unlike `import()` it does so under a test runner too.
    values = createRequire(pathToFileURL(file))(file) as typeof values;
  } catch (error) {
    throw await failedToLoad(file, error);
  }
  if (values['default'] !== undefined) {
    try {
      return readSchema(values['default']);
    } catch (error) {
      throw fault(file, `its default export is no schema: ${(error as Error).message}`, error);
    }
  }
  const { readPlainSchema } = await import('./plain-schema.js');
  const plain = readPlainSchema(file, values);
  if (!plain) {
    throw fault(
      file,
      'it declares no model. Example: export default defineSchema({ models: { … } }), or export interface Contact { name: string }',
    );
  }
  const { schema, faults } = plain;
  if (faults.length > 0) throw fault(file, schemaInvalid(faults, basename(file)).message, undefined, faults);
  return schema;
}

function fault(file: string, message: string, cause?: unknown, faults?: readonly SchemaFault[]): CodedError {
  return new CodedError('SCHEMA_INVALID', `${file}: ${message}`, faults && { faults }, { cause });
}

/** What a module failed with, with places: its own faults, a fault of its syntax, or anything else that was thrown in it. */
async function failedToLoad(file: string, error: unknown): Promise<CodedError> {
  const { default: compiler } = await import('typescript');
  const source = compiler.createSourceFile(file, compiler.sys.readFile(file) ?? '', compiler.ScriptTarget.Latest, true);
  const name = basename(file);
  if (isCodedError(error) && Array.isArray(error.details?.['faults'])) {
    const faults = (error.details['faults'] as SchemaFault[]).map((each) => ({
      ...each,
      ...placeOf(compiler, source, each.path),
    }));
    return fault(file, schemaInvalid(faults, name).message, error, faults);
  }
  const { diagnostics = [] } = compiler.transpileModule(source.text, { fileName: file, reportDiagnostics: true });
  const [broken] = diagnostics;
  if (broken) {
    const { line, character } = source.getLineAndCharacterOfPosition(broken.start ?? 0);
    const message = compiler.flattenDiagnosticMessageText(broken.messageText, ' ');
    return fault(file, `${name}:${line + 1}:${character + 1} ${message}`, error);
  }
  const reason = error instanceof Error ? error.message : String(error);
  const advice = await adviceOf(reason);
  const named = /'([^']+)'/.exec(reason)?.[1];
  const place =
    error instanceof Error
      ? new RegExp(`${RegExp.escape(name)}:(\\d+):(\\d+)`).exec(error.stack ?? '')?.[0]
      : undefined;
  // What an import lacks is told without a place: it is where the name stands.
  const imported = place ?? (named === undefined ? undefined : importPlaceOf(compiler, source, name, named));
  return fault(file, `${imported === undefined ? '' : `${imported} `}${reason}${advice}`, error);
}

/** What the module of the language has for the rest of this lib, not for authors. */
const OUR_OWN: readonly string[] = ['attributes', 'idsName'];

/** What would be right where a word of the language is misspelt or not imported; nothing for other errors. */
async function adviceOf(reason: string): Promise<string> {
  const language = await import('./dsl.js');
  const words = Object.keys(language).filter((word) => /^[a-z]/.test(word) && !OUR_OWN.includes(word));
  const notDefined = /^(\w+) is not defined$/.exec(reason)?.[1];
  if (notDefined && words.includes(notDefined)) return `. Example: import { ${notDefined} } from '@atomo-cc/schema'`;
  if (/@atomo-cc\/schema' does not provide an export named/.test(reason)) return `. There are ${words.join(', ')}`;
  const method = /\.(\w+) is not a function$/.exec(reason)?.[1];
  if (method === undefined) return '';
  const { Field, TextField, NumberField, TimeField, BlocksField } = language;
  const methods = [Field, TextField, NumberField, TimeField, BlocksField].flatMap((kind) =>
    Object.getOwnPropertyNames(kind.prototype).filter((each) => each !== 'constructor' && each !== 'with'),
  );
  return `: that field has no word ${method}. Fields have ${[...new Set(methods)].join(', ')}`;
}

/** The place of an import that names something, or the module that it comes from. */
function importPlaceOf(compiler: typeof ts, source: ts.SourceFile, file: string, named: string): string | undefined {
  let found: ts.Node | undefined;
  for (const statement of source.statements) {
    if (!compiler.isImportDeclaration(statement)) continue;
    const bindings = statement.importClause?.namedBindings;
    const elements = bindings && compiler.isNamedImports(bindings) ? [...bindings.elements] : [];
    found ??= elements.find(({ name, propertyName }) => (propertyName ?? name).text === named);
    const { moduleSpecifier } = statement;
    // A path is told whole, however it was written.
    if (compiler.isStringLiteral(moduleSpecifier) && named.endsWith(moduleSpecifier.text.replace(/^\.+\//, '')))
      found ??= moduleSpecifier;
  }
  if (!found) return undefined;
  const { line, character } = source.getLineAndCharacterOfPosition(found.getStart(source));
  return `${file}:${line + 1}:${character + 1}`;
}

/** Where in a file of the DSL a path leads: to the deepest part of it that is written there. */
function placeOf(
  compiler: typeof ts,
  source: ts.SourceFile,
  path: string,
): { line: number; column: number } | undefined {
  const [first = '', ...rest] = path.split('.');
  const calls: ts.CallExpression[] = [];
  const constants = new Map<string, ts.Expression>();
  const visit = (node: ts.Node): void => {
    if (compiler.isCallExpression(node)) calls.push(node);
    if (compiler.isVariableDeclaration(node) && compiler.isIdentifier(node.name) && node.initializer) {
      constants.set(node.name.text, node.initializer);
    }
    compiler.forEachChild(node, visit);
  };
  visit(source);
  const called = (name: string) => calls.filter(({ expression }) => expression.getText(source) === name);
  const block = called('block').find(
    ({ arguments: [name] }) => name && compiler.isStringLiteral(name) && name.text === rest[0],
  );
  let found: ts.Node | undefined = first === 'blocks' ? block : called('defineSchema')[0];
  let at: ts.Expression | undefined =
    first === 'blocks' ? block?.arguments[1] : called('defineSchema')[0]?.arguments[0];
  for (const word of first === 'blocks' ? rest.slice(1) : [first, ...rest]) {
    if (at && compiler.isIdentifier(at)) at = constants.get(at.text);
    if (at && compiler.isCallExpression(at)) at = at.arguments[0];
    if (at && compiler.isArrayLiteralExpression(at)) {
      at = at.elements[Number(word)];
      found = at ?? found;
      continue;
    }
    const property: ts.ObjectLiteralElementLike | undefined =
      at && compiler.isObjectLiteralExpression(at)
        ? at.properties.find(({ name }) => name && 'text' in name && name.text === word)
        : undefined;
    if (!property) break;
    found = property;
    at = compiler.isPropertyAssignment(property)
      ? property.initializer
      : compiler.isShorthandPropertyAssignment(property)
        ? constants.get(property.name.text)
        : undefined;
  }
  if (!found) return undefined;
  const { line, character } = source.getLineAndCharacterOfPosition(found.getStart(source));
  return { line: line + 1, column: character + 1 };
}
