import { belongsTo, boolean, date, defineSchema, email, enumeration, number, text } from '@atomo-cc/schema';

export default defineSchema({
  models: {
    Company: {
      description: 'An organisation we do business with.',
      fields: {
        name: text().required().describe('The name it goes by.'),
        industry: text().max(100),
        website: text().max(500),
        employees: number().min(0),
        isCustomer: boolean().describe('True once a first deal was won.'),
      },
      access: {
        read: { everyone: true },
        create: { Manager: true, Sales: true },
        update: { Manager: true, Sales: true },
        delete: { Manager: true },
      },
    },
    Contact: {
      description: 'A person, usually at a company.',
      fields: {
        name: text().required().personal().describe('First and last name.'),
        email: email().personal(),
        phone: text().max(50).personal(),
        company: belongsTo('Company'),
        stage: enumeration('Lead', 'Prospect', 'Customer', 'Former').describe('Where the relationship stands.'),
        birthday: date().personal(),
      },
      access: {
        read: { everyone: true },
        create: { Manager: true, Sales: true, Support: true },
        update: { Manager: true, Sales: true, Support: ['email', 'phone'] },
        delete: { Manager: true },
      },
    },
    Deal: {
      description: 'A sale in the making.',
      fields: {
        title: text().required(),
        amount: number().min(0).describe('In the currency of the company, without tax.'),
        stage: enumeration('Open', 'Won', 'Lost').required(),
        closesOn: date().describe('The day by which the decision is expected.'),
        company: belongsTo('Company').required(),
        contact: belongsTo('Contact'),
      },
      access: {
        read: { Manager: true, Sales: true, Support: ['id', 'title', 'stage', 'company', 'contact'] },
        create: { Manager: true, Sales: true },
        update: { Manager: true, Sales: { where: { stage: { equals: 'Open' } } } },
      },
    },
    Note: {
      description: 'Something worth remembering about a contact or a deal.',
      fields: {
        body: text().max(100_000).required().personal(),
        pinned: boolean(),
        contact: belongsTo('Contact'),
        deal: belongsTo('Deal'),
      },
      access: {
        read: { Manager: true, Sales: true, Support: true },
        create: { Manager: true, Sales: true, Support: true },
        update: { Manager: true, Sales: true, Support: true },
        delete: { Manager: true },
      },
    },
  },
});
