// Mandatory messages that no queue takes come back, before they are confirmed.
'use strict';

const {assert, next, run, unique} = require('./common');

run(async (connection) => {
  const channel = await connection.createConfirmChannel();
  const returned = next(channel, 'return');
  const order = [];
  channel.on('return', () => order.push('return'));
  channel.publish('', unique('nobody'), Buffer.from('come back'), {mandatory: true, messageId: '7'}, () => {
    order.push('confirm');
  });
  const [{content, fields, properties}] = await returned;
  assert.deepEqual([fields.replyCode, fields.replyText, fields.exchange], [312, 'NO_ROUTE', '']);
  assert.equal(fields.routingKey, unique('nobody'));
  assert.deepEqual([content.toString(), properties.messageId], ['come back', '7']);
  await channel.waitForConfirms();
  channel.publish('', unique('nobody'), Buffer.from('dropped'));
  await channel.waitForConfirms();
  assert.deepEqual(order, ['return', 'confirm']);
});
