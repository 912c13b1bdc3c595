// `import type` where only the type is used, but not for classes that Nest injects.
//
// Nest finds what to inject in decorator metadata, which the compiler writes only for value imports. Linters see such an
// import as a mere type (typescript/consistent-type-imports of oxlint does), and following their advice breaks the boot.
import ts from 'typescript';

/** @type {import('./run.mjs').Check} */
export const typeImports = {
  name: 'type-imports',
  promise: '`import type` where only the type is used, value imports for classes that Nest injects',
  find(tree) {
    return tree.sources.flatMap((file) => {
      const uses = usesByName(tree, file);
      return importedNames(tree, file).flatMap(({ name, isTypeOnly, node }) => {
        const found = uses.get(name) ?? [];
        const place = tree.place(file, node);
        if (isTypeOnly) {
          const isInjected = found.some((use) => metadataPosition(use) === 'injected');
          return isInjected ? [`${place} ${name} is injected by Nest: import it as a value`] : [];
        }
        const isMereType = found.length > 0 && found.every((use) => isInType(use) && !metadataPosition(use));
        return isMereType ? [`${place} ${name} is used only as a type: import type`] : [];
      });
    });
  },
  plants: [
    {
      files: {
        'apps/autoscaler/src/planted.ts':
          "import { newId } from '@atomo-cc/kernel';\nimport type { Clock } from './clock.js';\nimport { Ref } from './clock.js';\n" +
          '@Injectable()\nexport class Planted {\n  constructor(a: Clock, @Inject("x") b: Ref) {}\n  id: typeof newId;\n}\n',
      },
      expects: 'planted.ts:2 Clock is injected',
    },
    { files: {}, expects: 'planted.ts:1 newId is used only as a type' },
  ],
};

/** `x: Clock`, `implements Clock` and `typeof clock` alike. */
function isInType(use) {
  return ts.isPartOfTypeNode(use) || !!ts.findAncestor(use, ts.isTypeQueryNode);
}

function importedNames(tree, file) {
  return tree.nodes(file, ts.isImportDeclaration).flatMap(({ importClause: clause }) => {
    const bindings = clause?.namedBindings;
    const elements = bindings && ts.isNamedImports(bindings) ? bindings.elements : [];
    const whole = [
      ...(clause?.name ? [clause] : []),
      ...(bindings && ts.isNamespaceImport(bindings) ? [bindings] : []),
    ];
    return [...elements, ...whole].map((node) => ({
      name: node.name.text,
      isTypeOnly: clause.isTypeOnly || !!node.isTypeOnly,
      node,
    }));
  });
}

/** Every identifier of the file that is not itself part of an import, a member's name or a property's name. */
function usesByName(tree, file) {
  const uses = new Map();
  for (const node of tree.nodes(file, ts.isIdentifier)) {
    const { parent } = node;
    if (ts.findAncestor(node, ts.isImportDeclaration)) continue;
    if (ts.isPropertyAccessExpression(parent) && parent.name === node) continue;
    if (ts.isQualifiedName(parent) && parent.right === node) continue;
    if (parent.name === node && !ts.isShorthandPropertyAssignment(parent) && !ts.isExportSpecifier(parent)) continue;
    uses.set(node.text, [...(uses.get(node.text) ?? []), node]);
  }
  return uses;
}

/**
 * Whether a type stands where the compiler writes it into metadata: 'injected' for a bare constructor parameter of a
 * decorated class, 'metadata' for parameters with a decorator of their own and for decorated members.
 */
function metadataPosition(use) {
  const member = ts.findAncestor(use, (node) => ts.isClassElement(node) || ts.isBlock(node));
  if (!member || ts.isBlock(member)) return undefined;
  const isDecorated = (node) => (ts.canHaveDecorators(node) ? (ts.getDecorators(node) ?? []).length > 0 : false);
  if (!ts.isConstructorDeclaration(member)) {
    const isMarked = isDecorated(member) || (member.parameters ?? []).some(isDecorated);
    return isMarked ? 'metadata' : undefined;
  }
  if (!isDecorated(member.parent)) return undefined;
  const parameter = ts.findAncestor(use, ts.isParameter);
  // Only the reference itself is written: in Map<string, Clock> it is Map.
  const isWhole = parameter?.type && ts.isTypeReferenceNode(parameter.type) && parameter.type.typeName === use;
  if (!isWhole) return undefined;
  return isDecorated(parameter) ? 'metadata' : 'injected';
}
