import ts from 'typescript';
import { checkSchema, DEFAULT_ROLES, type SchemaDeclaration } from './define-schema.js';
import {
  belongsTo,
  Block,
  blocks,
  BlocksField,
  boolean,
  date,
  datetime,
  decimal,
  email,
  enumeration,
  Field,
  file,
  geoPoint,
  hasMany,
  integer,
  json,
  Link,
  manyToMany,
  number,
  NumberField,
  richText,
  slug,
  text,
  TextField,
  url,
  type GrantDeclaration,
  type ModelDeclaration,
} from './dsl.js';
import { isObject, isStrings, quoted, type SchemaFault } from './faults.js';
import { OWN_FIELDS, type JsonValue, type OnDelete, type SchemaDefinition } from './model.js';

/**
 * The plain form of a schema: TypeScript that anyone could have written, without a word of the DSL. Types are read by the compiler,
 * values (`access`, `on`) from the module. docs/adr/0013-plain-schemas.md has the rules and why they are as they are.
 */

type Place = { readonly line: number; readonly column: number };

/** What a module exports, by name. */
export type ModuleValues = Readonly<Record<string, unknown>>;

/** The compiler settings under which types are read: as strict as can be, so that optional means optional. */
const OPTIONS: ts.CompilerOptions = {
  target: ts.ScriptTarget.ES2022,
  // Date, Array and Record are all that a schema needs of the language's own types.
  lib: ['lib.es5.d.ts'],
  types: [],
  strict: true,
  exactOptionalPropertyTypes: true,
  noEmit: true,
  skipLibCheck: true,
  allowImportingTsExtensions: true,
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
};

/** Tags of documentation that say nothing about what is stored. */
const SILENT_TAGS = ['deprecated', 'see', 'example', 'remarks', 'since', 'todo', 'internal', 'author'];

/**
 * Reads a plain schema. Never throws on what the author wrote: every fault has its place.
 * @returns null when the file exports no interface, so that it is no plain schema
 */
export function readPlainSchema(
  fileName: string,
  values: ModuleValues,
): { readonly schema: SchemaDefinition; readonly faults: readonly SchemaFault[] } | null {
  const reader = new PlainReader(fileName);
  if (reader.models.size === 0) return null;
  const { schema, faults } = checkSchema(reader.declaration(values));
  return { schema, faults: [...reader.faults, ...faults.map((fault) => reader.placed(fault))] };
}

class PlainReader {
  readonly faults: SchemaFault[] = [];
  /** The interfaces that are models, by their types. */
  readonly models = new Map<ts.Type, string>();
  private readonly places = new Map<string, Place>();
  private readonly blockTypes = new Map<ts.Type, Block | string>();
  private readonly checker: ts.TypeChecker;
  private readonly source: ts.SourceFile;
  private readonly exported: readonly ts.Symbol[];

  constructor(fileName: string) {
    const program = ts.createProgram([fileName], OPTIONS);
    this.checker = program.getTypeChecker();
    this.source = program.getSourceFile(fileName)!;
    const module = this.checker.getSymbolAtLocation(this.source);
    this.exported = (module ? this.checker.getExportsOfModule(module) : []).map((symbol) =>
      symbol.flags & ts.SymbolFlags.Alias ? this.checker.getAliasedSymbol(symbol) : symbol,
    );
    for (const symbol of this.exported) {
      const type = this.checker.getDeclaredTypeOfSymbol(symbol);
      if (symbol.flags & ts.SymbolFlags.Interface && blockName(this.checker, type) === null)
        this.models.set(type, symbol.name);
    }
  }

  /** What the file would be in the DSL. */
  declaration(values: ModuleValues): SchemaDeclaration {
    const roles = this.roles();
    const models: Record<string, ModelDeclaration> = {};
    for (const [type, name] of this.models) models[name] = this.model(type, name);
    for (const [constant, take] of [
      ['access', (model: string, said: unknown) => ({ access: this.access(model, said, roles) })],
      ['on', (_model: string, said: unknown) => ({ on: said as NonNullable<ModelDeclaration['on']> })],
    ] as const) {
      const said = values[constant];
      if (said === undefined) continue;
      if (!isObject(said)) {
        this.add(
          constant,
          this.constant(constant),
          `is no object of models. Example: export const ${constant} = { Contact: { … } }`,
        );
        continue;
      }
      for (const [model, rules] of Object.entries(said)) {
        const node = memberOf(this.constant(constant), model) ?? this.constant(constant);
        if (node) this.place(`models.${model}.${constant}`, node);
        if (models[model]) models[model] = { ...models[model], ...take(model, rules) };
        else
          this.add(
            `${constant}.${model}`,
            node,
            `there is no model ${model}. There are ${Object.keys(models).join(', ')}`,
          );
      }
    }
    return { roles, models };
  }

  /** A fault with the place of what it speaks of, or of the nearest thing around it. */
  placed(fault: SchemaFault): SchemaFault {
    for (let path = fault.path; path !== ''; path = path.slice(0, Math.max(0, path.lastIndexOf('.')))) {
      const place = this.places.get(path);
      if (place) return { ...fault, ...place };
    }
    return fault;
  }

  private add(path: string, node: ts.Node | undefined, message: string): void {
    this.faults.push({ path, message, ...(node ? this.placeOf(node) : {}) });
  }

  private place(path: string, node: ts.Node | undefined): void {
    if (node) this.places.set(path, this.placeOf(node));
  }

  private placeOf(node: ts.Node): Place {
    const source = node.getSourceFile();
    const { line, character } = source.getLineAndCharacterOfPosition(node.getStart(source));
    return { line: line + 1, column: character + 1 };
  }

  /** The roles that rules are asked about. Where Admin is not one of them, no rule says anything of Admin, who then may do everything. */
  private roles(): readonly string[] {
    const role = this.exported.find(({ name, flags }) => name === 'Role' && flags & ts.SymbolFlags.TypeAlias);
    const node = role?.declarations?.find(ts.isTypeAliasDeclaration);
    if (!role || !node) return DEFAULT_ROLES;
    this.place('roles', node);
    const values = this.literals(this.checker.getDeclaredTypeOfSymbol(role), node.type);
    if (!values) this.add('roles', node, "Role is no union of words. Example: export type Role = 'Admin' | 'Viewer'");
    return values ?? [];
  }

  private model(type: ts.Type, name: string): ModelDeclaration {
    const path = `models.${name}`;
    const symbol = type.getSymbol()!;
    const node = symbol.declarations?.[0];
    this.place(path, node);
    const fields: Record<string, Field<unknown> | Link> = {};
    for (const property of type.getProperties()) {
      // They are every record's own; writing them down makes the interface the type of what is read.
      if (OWN_FIELDS.includes(property.name)) continue;
      const member = this.member(`${path}.fields.${property.name}`, property, { type, name });
      if (member) fields[property.name] = member;
    }
    const unique: string[][] = [];
    let plural: string | undefined;
    for (const { name: tag, text: parts } of symbol.getJsDocTags(this.checker)) {
      const said = ts.displayPartsToString(parts).trim();
      if (tag === 'plural') plural = said;
      else if (tag === 'unique') unique.push(said.split(/[\s,]+/));
      else if (!SILENT_TAGS.includes(tag))
        this.add(path, node, `@${tag} means nothing for a model. There are @plural, @unique`);
    }
    const description = this.description(symbol);
    return {
      fields,
      ...(description ? { description } : {}),
      ...(plural ? { plural } : {}),
      ...(unique.length > 0 ? { unique } : {}),
    };
  }

  private description(symbol: ts.Symbol): string | null {
    return ts.displayPartsToString(symbol.getDocumentationComment(this.checker)).replaceAll(/\s+/g, ' ').trim() || null;
  }

  /** The field that a property stands for, or null after a fault. `model` is null inside a block. */
  private member(
    path: string,
    property: ts.Symbol,
    model: { type: ts.Type; name: string } | null,
  ): Field<unknown> | Link | null {
    const node = property.declarations?.[0];
    this.place(path, node);
    const declared = this.checker.getTypeOfSymbol(property);
    // Without null, unknown would be anything but null, which is another type.
    const isUnknown = (declared.flags & ts.TypeFlags.Unknown) !== 0;
    const type = isUnknown ? declared : this.checker.getNonNullableType(declared);
    const isOptional = (property.flags & ts.SymbolFlags.Optional) !== 0 || type !== declared;
    const tags = property
      .getJsDocTags(this.checker)
      .map(({ name, text: parts }) => ({ name, said: ts.displayPartsToString(parts).trim() }))
      .filter(({ name }) => !SILENT_TAGS.includes(name));
    const made = this.typed(path, node, property.name, type, model, tags);
    if (!made) return null;
    const description = this.description(property);
    if (made instanceof Link) return description ? made.describe(description) : made;
    const field = this.tagged(path, node, description ? made.describe(description) : made, tags);
    return isOptional ? field : field.required();
  }

  private typed(
    path: string,
    node: ts.Node | undefined,
    name: string,
    type: ts.Type,
    model: { type: ts.Type; name: string } | null,
    tags: Tag[],
  ): Field<unknown> | Link | null {
    const written = node && ts.isPropertySignature(node) ? node.type : undefined;
    const wrong = (message: string) => {
      this.add(path, node, message);
      return null;
    };
    const kind = tags.findIndex((tag) => Object.hasOwn(KIND_TAGS, tag.name));
    if (kind >= 0) {
      const [tag] = tags.splice(kind, 1);
      const known = KIND_TAGS[tag!.name]!;
      if (!(type.flags & (known.of === 'string' ? ts.TypeFlags.String : ts.TypeFlags.Number)))
        return wrong(`@${tag!.name} is said of a ${known.of}. Example: ${name}: ${known.of}`);
      return known.make(tag!.said);
    }
    if (type.flags & ts.TypeFlags.Any) {
      if (written?.kind === ts.SyntaxKind.AnyKeyword) return json();
      return wrong(`the type ${written?.getText() ?? 'it has'} is not known here. Declare and export it in this file`);
    }
    if (type.flags & ts.TypeFlags.String) return text();
    if (type.flags & ts.TypeFlags.Number) return number();
    if (type.flags & ts.TypeFlags.BooleanLike) return boolean();
    if (type.flags & ts.TypeFlags.Unknown || type.flags & ts.TypeFlags.NonPrimitive) return json();
    const words = this.literals(type, written);
    if (words) return enumeration(...(words as [string, ...string[]]));
    if (isLibrary(type, 'Date')) return datetime();
    if (this.checker.isArrayType(type)) return this.list(path, node, type, model, tags);
    const target = this.models.get(type);
    if (target !== undefined) {
      if (model === null) return wrong('a block has no relations; hold the record in a field of the model');
      const at = tags.findIndex((tag) => tag.name === 'onDelete');
      const [tag] = at >= 0 ? tags.splice(at, 1) : [];
      return belongsTo(target, tag ? { onDelete: tag.said as OnDelete } : {});
    }
    if (type.flags & ts.TypeFlags.Object) {
      const names = type.getProperties().map((property) => property.name);
      if (type.getCallSignatures().length > 0) return wrong('is a function, which cannot be stored');
      if (names.toSorted().join() === 'lat,lng') return geoPoint();
      if (this.checker.getIndexInfosOfType(type).length > 0 && names.length === 0) return json();
      if (type.isClassOrInterface())
        return wrong(`${type.symbol.name} is not exported, so it is no model. Write export before it`);
    }
    if (this.blockMembers(type))
      return wrong(`a block stands in a list. Example: ${name}: ${written?.getText() ?? 'Block'}[]`);
    return wrong(
      `${this.checker.typeToString(type)} is no type of field. There are string, number, boolean, Date, unknown (for JSON), unions of words, interfaces, and lists of interfaces or of blocks`,
    );
  }

  private list(
    path: string,
    node: ts.Node | undefined,
    type: ts.Type,
    model: { type: ts.Type; name: string } | null,
    tags: Tag[],
  ): Field<unknown> | Link | null {
    const wrong = (message: string) => {
      this.add(path, node, message);
      return null;
    };
    const element = this.checker.getTypeArguments(type as ts.TypeReference)[0]!;
    const target = this.models.get(element);
    if (target !== undefined) {
      if (model === null) return wrong('a block has no relations; hold the records in a field of the model');
      const at = tags.findIndex((tag) => tag.name === 'via');
      const [via] = at >= 0 ? tags.splice(at, 1) : [];
      return this.link(path, node, model, element, target, via?.said);
    }
    const members = this.blockMembers(element);
    // A list that is not given is empty, as a value of this type would be.
    if (members) {
      const written = node && ts.isPropertySignature(node) ? node.type : undefined;
      return blocks(this.asWritten(members, written).map((member) => this.block(member))).default([]);
    }
    return wrong(
      `a list of ${this.checker.typeToString(element)} is no field. There are lists of interfaces and of blocks, which are objects told apart by type: { type: 'Paragraph'; text: string }`,
    );
  }

  /** What a list of records is follows from what their interface says of this one. */
  private link(
    path: string,
    node: ts.Node | undefined,
    model: { type: ts.Type; name: string },
    element: ts.Type,
    target: string,
    via: string | undefined,
  ): Link | null {
    const own = path.slice(path.lastIndexOf('.') + 1);
    if (via !== undefined) return hasMany(target, { via });
    const back = element.getProperties().map((property) => ({
      name: property.name,
      type: this.checker.getNonNullableType(this.checker.getTypeOfSymbol(property)),
    }));
    const single = back.filter((each) => each.type === model.type);
    if (single.length === 1) return hasMany(target, { via: single[0]!.name });
    if (single.length > 1) {
      this.add(
        path,
        node,
        `${target} points here by ${single.map((each) => each.name).join(' and ')}. Say which is meant: /** @via ${single[0]!.name} */`,
      );
      return null;
    }
    const lists = back.filter(
      (each) =>
        this.checker.isArrayType(each.type) &&
        this.checker.getTypeArguments(each.type as ts.TypeReference)[0] === model.type &&
        !(element === model.type && each.name === own),
    );
    if (lists.length > 1 || (lists.length === 1 && element === model.type)) {
      this.add(
        path,
        node,
        `${target} has several lists of ${model.name}, so it is not clear which belong together. Make the link an interface of its own`,
      );
      return null;
    }
    const order = [...this.models.values()];
    // Of two lists that face each other, the one that is declared first owns the links.
    const isSecond = lists.length === 1 && order.indexOf(target) < order.indexOf(model.name);
    return isSecond ? manyToMany(target, { inverseOf: lists[0]!.name }) : manyToMany(target);
  }

  /** The members of a union of blocks, or of one block alone; null when it is none. */
  private blockMembers(type: ts.Type): readonly ts.Type[] | null {
    const members = type.isUnion() ? type.types : [type];
    return members.every((member) => blockName(this.checker, member) !== null) ? members : null;
  }

  private block(type: ts.Type): Block | string {
    const known = this.blockTypes.get(type);
    if (known !== undefined) return known;
    const name = blockName(this.checker, type)!;
    // While it is being read, a block that holds itself is named.
    this.blockTypes.set(type, name);
    const path = `blocks.${name}`;
    this.place(path, type.getSymbol()?.declarations?.[0]);
    const fields: Record<string, Field<unknown>> = {};
    for (const property of type.getProperties()) {
      if (property.name === 'type') continue;
      const member = this.member(`${path}.fields.${property.name}`, property, null);
      if (member instanceof Field) fields[property.name] = member;
    }
    const description = type.isClassOrInterface() ? this.description(type.symbol) : null;
    const made = new Block(name, { fields, ...(description ? { description } : {}) });
    this.blockTypes.set(type, made);
    return made;
  }

  private tagged(path: string, node: ts.Node | undefined, field: Field<unknown>, tags: readonly Tag[]): Field<unknown> {
    let made = field;
    for (const { name, said } of tags) {
      const next = applyTag(made, name, said);
      if (next) made = next;
      else
        this.add(
          path,
          node,
          `@${name}${said ? ` ${said}` : ''} means nothing for this field. There are ${[...Object.keys(KIND_TAGS), ...RULE_TAGS].map((tag) => `@${tag}`).join(', ')}`,
        );
    }
    return made;
  }

  /** The words of a union of string literals in the order they are written; null for any other type. */
  private literals(type: ts.Type, node: ts.TypeNode | undefined): readonly string[] | null {
    const members = this.asWritten(type.isUnion() ? type.types : [type], node);
    return members.every((member) => member.isStringLiteral()) ? members.map((member) => member.value) : null;
  }

  /**
   * The members of a union in the order they are written. The compiler orders them by when it first met each, which may have been in
   * another union.
   */
  private asWritten<Member extends ts.Type>(
    members: readonly Member[],
    node: ts.TypeNode | undefined,
  ): readonly Member[] {
    const written: ts.Type[] = [];
    const visit = (at: ts.TypeNode | undefined): void => {
      if (!at) return;
      const alias = ts.isTypeReferenceNode(at)
        ? this.checker.getSymbolAtLocation(at.typeName)?.declarations?.find(ts.isTypeAliasDeclaration)
        : undefined;
      if (ts.isUnionTypeNode(at)) at.types.forEach(visit);
      else if (ts.isParenthesizedTypeNode(at) || ts.isTypeOperatorNode(at)) visit(at.type);
      else if (ts.isArrayTypeNode(at)) visit(at.elementType);
      else if (alias) visit(alias.type);
      else if (ts.isTypeReferenceNode(at) && at.typeArguments?.length === 1) visit(at.typeArguments[0]);
      else written.push(this.checker.getTypeFromTypeNode(at));
    };
    visit(node);
    const place = (member: Member) => (written.includes(member) ? written.indexOf(member) : written.length);
    return members.toSorted((a, b) => place(a) - place(b));
  }

  /** Calls the functions of a model's rules for every role; what they say is kept as it is. */
  private access(model: string, said: unknown, roles: readonly string[]): NonNullable<ModelDeclaration['access']> {
    const path = `access.${model}`;
    const node = memberOf(this.constant('access'), model);
    if (!isObject(said)) {
      this.add(path, node, "is no object of operations. Example: { read: ({ role }) => role !== 'Viewer' }");
      return {};
    }
    return Object.fromEntries(
      Object.entries(said).map(([operation, rule]) => {
        const failures = new Map<string, string[]>();
        const grants = roles.map((role) => {
          const answer = askRule(rule, role);
          if ('grant' in answer) return [role, answer.grant];
          failures.set(answer.wrong, [...(failures.get(answer.wrong) ?? []), role]);
          return [role, false];
        });
        for (const [wrong, failed] of failures) {
          const place = memberOf(node, operation) ?? node;
          this.add(`${path}.${operation}`, place, `for ${failed.join(', ')} it ${wrong}`);
        }
        return [operation, Object.fromEntries(grants)];
      }),
    );
  }

  /** The value of an exported constant. */
  private constant(name: string): ts.Expression | undefined {
    const symbol = this.exported.find((candidate) => candidate.name === name);
    return symbol?.declarations?.find(ts.isVariableDeclaration)?.initializer;
  }
}

type Tag = { readonly name: string; readonly said: string };

/** The name of a block: the literal that its property `type` has; null for any other type. */
function blockName(checker: ts.TypeChecker, type: ts.Type): string | null {
  const property = type.flags & ts.TypeFlags.Object ? type.getProperty('type') : undefined;
  const literal = property && checker.getTypeOfSymbol(property);
  return literal?.isStringLiteral() ? literal.value : null;
}

function isLibrary(type: ts.Type, name: string): boolean {
  const symbol = type.getSymbol();
  return (
    symbol?.name === name &&
    (symbol.declarations ?? []).every(
      (node) => node.getSourceFile().hasNoDefaultLib || /\blib\.[^/]*\.d\.ts$/.test(node.getSourceFile().fileName),
    )
  );
}

/** The property of an object literal, whatever stands around the literal. */
function memberOf(node: ts.Node | undefined, name: string): ts.Node | undefined {
  let at = node && ts.isPropertyAssignment(node) ? node.initializer : node;
  while (at && (ts.isAsExpression(at) || ts.isSatisfiesExpression(at) || ts.isParenthesizedExpression(at)))
    at = at.expression;
  if (!at || !ts.isObjectLiteralExpression(at)) return undefined;
  return at.properties.find((property) => property.name && 'text' in property.name && property.name.text === name);
}

/** Tags that say which kind of text or number a field holds. */
const KIND_TAGS: Readonly<Record<string, { readonly of: 'string' | 'number'; make(said: string): Field<unknown> }>> = {
  email: { of: 'string', make: () => email() },
  url: { of: 'string', make: () => url() },
  richText: { of: 'string', make: () => richText() },
  date: { of: 'string', make: () => date() },
  file: { of: 'string', make: () => file() },
  slug: {
    of: 'string',
    make: (said) => {
      const [from, ...scope] = said.split(/[\s,]+/).filter(Boolean);
      return from ? slug({ from, scope }) : slug();
    },
  },
  decimal: {
    of: 'string',
    make: (said) => {
      const [precision = Number.NaN, scale = Number.NaN] = said.split(/[\s,]+/).map(Number);
      return decimal(precision, scale);
    },
  },
  integer: { of: 'number', make: () => integer() },
};

const RULE_TAGS = 'min max pattern unique index searchable personal sensitive default label formerly'.split(' ');

/** The number that a tag says; what is none is left as it was written, to be told so. */
function boundIn(said: string): number {
  return said !== '' && Number.isFinite(Number(said)) ? Number(said) : (said as unknown as number);
}

/** The field with what a tag says, or null when that means nothing for it. */
function applyTag(field: Field<unknown>, tag: string, said: string): Field<unknown> | null {
  switch (tag) {
    case 'unique':
      return field.unique();
    case 'index':
      return field.index();
    case 'personal':
      return field.personal();
    case 'sensitive':
      return field.sensitive();
    case 'formerly':
      return field.formerly(...said.split(/[\s,]+/).filter(Boolean));
    case 'label':
      return field.ui({ label: said });
    case 'default':
      return field.default(readDefault(field, said));
    case 'searchable':
      return field instanceof TextField || field instanceof BlocksField ? field.searchable() : null;
    case 'min':
      return field instanceof TextField || field instanceof NumberField ? field.min(boundIn(said)) : null;
    case 'max':
      if (field instanceof TextField || field instanceof NumberField || field instanceof BlocksField)
        return (field as NumberField).max(boundIn(said));
      return null;
    case 'pattern':
      return field instanceof TextField ? field.pattern({ source: said, flags: 'u' } as RegExp) : null;
    default:
      return null;
  }
}

/** A default as it was meant: `@default Open` of a text or a union, `@default 3` of a number. */
function readDefault(field: Field<unknown>, said: string): JsonValue {
  if (['number', 'integer', 'boolean', 'json', 'geoPoint', 'blocks'].includes(field.attributes.type)) {
    try {
      return JSON.parse(said) as JsonValue;
    } catch {
      return said;
    }
  }
  return said;
}

/**
 * Asks a rule what a role may do. Rules are functions of the role alone, called once at the start, so one that wants to know more would
 * decide on nothing: it is told so instead.
 */
function askRule(rule: unknown, role: string): { readonly grant: GrantDeclaration } | { readonly wrong: string } {
  const known = new Proxy(
    { role },
    {
      get(target, property) {
        if (property === 'role') return target.role;
        throw new TypeError(`asks for ${String(property)}; only role is known when the schema is loaded`);
      },
    },
  );
  let said: unknown;
  try {
    said = typeof rule === 'function' ? (rule as (asked: unknown) => unknown)(known) : rule;
  } catch (error) {
    return { wrong: `failed: ${error instanceof Error ? error.message : quoted(error)}` };
  }
  if (typeof said === 'boolean' || isStrings(said)) return { grant: said };
  // What it may look like in a message, whatever it is.
  const shown =
    said instanceof Promise ? 'a promise' : typeof said === 'function' ? 'a function' : quoted(said).slice(0, 100);
  return { wrong: `says ${shown}, which is neither true, false nor a list of fields. Example: ['id', 'name']` };
}
