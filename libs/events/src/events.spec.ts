import { MODEL_EVENT_VERSIONS, modelEvent, modelStream } from './events.js';

describe('the events of models', () => {
  it.each(['created', 'updated', 'restored', 'deleted', 'purged'] as const)(
    '%s is named after its model and has the version of its shape',
    (kind) => {
      expect(modelEvent('Contact', kind, { name: 'Ada' })).toEqual({
        type: `Contact.${kind}`,
        schemaVersion: MODEL_EVENT_VERSIONS[kind],
        data: { name: 'Ada' },
      });
    },
  );

  it('stand in the stream of their record', () => {
    expect(modelStream('Contact', '1')).toBe('Contact-1');
  });
});
