import { lastErrorOf } from './service-process.js';

describe('the line of a log that tells why a service ended', () => {
  it('is the last record of level error, with its cause', () => {
    const log = [
      '{"level":30,"msg":"listening"}',
      '{"level":60,"msg":"boot failed","err":{"message":"relation \\"x\\" does not exist"}}',
      '{"level":30,"msg":"bye"}',
    ].join('\n');
    expect(lastErrorOf(log)).toBe('boot failed: relation "x" does not exist');
  });

  it('is the error above a stack, not a frame of it', () => {
    const log = [
      'file:///app/main.js:3',
      'throw new Error("no")',
      '^',
      'TypeError: schema.ts has no default export',
      '    at error (file:///app/main.js:3:7)',
      '',
      'Node.js v24.0.0',
    ].join('\n');
    expect(lastErrorOf(log)).toBe('TypeError: schema.ts has no default export');
  });

  it('is a headline with all the faults that are listed below it', () => {
    const log = [
      '{"level":30,"msg":"booting"}',
      '/crm/schema.ts: the schema has 2 fault(s):',
      '  models.contact: a name starts with a capital',
      '  models.contact.fields.id: every record has id already',
    ].join('\n');
    expect(lastErrorOf(log)).toBe(log.split('\n').slice(1).join('\n'));
  });

  it('is the message of the last record where nothing speaks of an error, and nothing of an empty log', () => {
    expect(lastErrorOf('{"level":30,"msg":"listening"}\n')).toBe('listening');
    expect(lastErrorOf('\n')).toBeUndefined();
  });
});
