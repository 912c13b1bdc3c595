// Conventional commits whose scope is a project: `feat(sync-gateway): …`. The subject says what behaves differently.
import fs from 'node:fs';
import path from 'node:path';

/** Scopes for what belongs to no project: the house itself, its documents, its packages. */
const SCOPES_OF_THE_HOUSE = ['repo', 'docs', 'deps'];

/** Names of all projects, from `nx.name` of each package, so that a new one is a scope at once. */
function projectNames() {
  return ['apps', 'libs', 'services', 'tools'].flatMap((room) => {
    const folder = path.join(import.meta.dirname, room);
    return (fs.existsSync(folder) ? fs.readdirSync(folder) : [])
      .map((name) => path.join(folder, name, 'package.json'))
      .filter((manifest) => fs.existsSync(manifest))
      .map((manifest) => JSON.parse(fs.readFileSync(manifest, 'utf8')).nx?.name)
      .filter(Boolean);
  });
}

export default {
  extends: ['@commitlint/config-conventional'],
  rules: {
    'scope-empty': [2, 'never'],
    'scope-enum': [2, 'always', [...SCOPES_OF_THE_HOUSE, ...projectNames()]],
    // A subject may open with a name as it is written: "GraphQL lists answer …", "LanceDB commits …".
    'subject-case': [0],
    'header-max-length': [2, 'always', 100],
    'body-max-line-length': [2, 'always', 120],
    'footer-max-line-length': [2, 'always', 120],
  },
};
