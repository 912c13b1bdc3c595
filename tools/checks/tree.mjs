// What every check sees of a working tree: its packages, its source files and their syntax trees, each read once.
import fs from 'node:fs';
import path from 'node:path';
import ts from 'typescript';

/** The rooms that hold packages; plain scripts under `tools/` belong to the root package. */
export const ROOMS = ['apps', 'libs', 'services', 'tools'];

const SKIPPED = new Set(['node_modules', 'dist', '.atomo', '.nx', 'coverage', '.git']);

/**
 * @typedef {{folder: string, name: string, type: string | undefined, manifest: Record<string, any>}} Package
 *   `folder` is relative to the root ("libs/kernel"), `type` the value of its one tag `type:…`.
 */

/** A working tree at `root`; every path given to it or returned by it is relative to that root with `/` between. */
export class Tree {
  #texts = new Map();
  #syntax = new Map();

  /** @param {string} root absolute */
  constructor(root) {
    this.root = root;
    /** @type {Package[]} */
    this.packages = this.#readPackages();
    /** TypeScript sources of the packages, without declarations. */
    this.sources = ROOMS.flatMap((room) => this.files(room)).filter(
      (file) => /\.m?ts$/.test(file) && !file.endsWith('.d.ts'),
    );
    /** Sources that run in production: no specs, conformance suites, `testing/` rooms, libs/testing, apps/e2e or tools. */
    this.productSources = this.sources.filter((file) => !isTestCode(file) && !file.startsWith('tools/'));
  }

  exists(file) {
    return fs.existsSync(path.join(this.root, file));
  }

  /** The text of a file, or undefined when it is not there. */
  text(file) {
    if (!this.#texts.has(file)) {
      this.#texts.set(file, this.exists(file) ? fs.readFileSync(path.join(this.root, file), 'utf8') : undefined);
    }
    return this.#texts.get(file);
  }

  /** The syntax tree of a TypeScript file, with parents. @returns {ts.SourceFile} */
  syntax(file) {
    if (!this.#syntax.has(file)) {
      this.#syntax.set(file, ts.createSourceFile(file, this.text(file) ?? '', ts.ScriptTarget.Latest, true));
    }
    return this.#syntax.get(file);
  }

  /** Every node of the file for which `wanted` holds. */
  nodes(file, wanted) {
    const found = [];
    const visit = (node) => {
      if (wanted(node)) found.push(node);
      ts.forEachChild(node, visit);
    };
    visit(this.syntax(file));
    return found;
  }

  /** "libs/x/src/y.ts:12" */
  place(file, node) {
    const source = this.syntax(file);
    return `${file}:${source.getLineAndCharacterOfPosition(node.getStart(source)).line + 1}`;
  }

  /** All files under `folder`, without built, installed and local ones. */
  files(folder) {
    const found = [];
    const walk = (at) => {
      const absolute = path.join(this.root, at);
      for (const entry of fs.existsSync(absolute) ? fs.readdirSync(absolute, { withFileTypes: true }) : []) {
        if (SKIPPED.has(entry.name)) continue;
        if (entry.isDirectory()) walk(`${at}/${entry.name}`);
        else if (entry.isFile()) found.push(`${at}/${entry.name}`);
      }
    };
    walk(folder);
    return found.sort((a, b) => (a < b ? -1 : 1));
  }

  #readPackages() {
    return ROOMS.flatMap((room) => {
      const absolute = path.join(this.root, room);
      const entries = fs.existsSync(absolute) ? fs.readdirSync(absolute, { withFileTypes: true }) : [];
      return entries
        .filter((entry) => entry.isDirectory())
        .map((entry) => `${room}/${entry.name}`)
        .filter((folder) => this.exists(`${folder}/package.json`))
        .map((folder) => {
          const manifest = JSON.parse(this.text(`${folder}/package.json`));
          const types = (manifest.nx?.tags ?? []).filter((tag) => tag.startsWith('type:'));
          return { folder, name: manifest.name, type: types.length === 1 ? types[0].slice(5) : undefined, manifest };
        });
    });
  }
}

/** Code that only tests run: specs, conformance suites, `testing/` rooms, libs/testing and apps/e2e. */
export function isTestCode(file) {
  return /\.(spec|conformance)\.ts$/.test(file) || file.includes('/testing/') || file.startsWith('apps/e2e/');
}
