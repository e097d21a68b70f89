// Tutorial 1: one message through the default exchange, with every property.
'use strict';

const {assert, consume, run, unique} = require('./common');

const PROPERTIES = {
  contentType: 'text/plain',
  contentEncoding: 'utf-8',
  headers: {text: 'ü', number: -3, flag: true, list: [1, 'two', null], table: {deep: {er: 1.5}}},
  deliveryMode: 2,
  priority: 5,
  correlationId: 'c',
  replyTo: 'r',
  messageId: 'm',
  timestamp: 1_700_000_000,
  type: 't',
  userId: 'guest',
  appId: 'a',
};

run(async (connection) => {
  const channel = await connection.createChannel();
  const {queue} = await channel.assertQueue(unique('hello'), {exclusive: true});
  channel.sendToQueue(queue, Buffer.from('Hello World!'), PROPERTIES);
  const messages = await consume(channel, queue, {noAck: true});
  const {content, fields, properties} = await messages.next();
  assert.equal(content.toString(), 'Hello World!');
  assert.deepEqual([fields.exchange, fields.routingKey, fields.redelivered], ['', queue, false]);
  for (const [name, value] of Object.entries(PROPERTIES)) assert.deepEqual(properties[name], value, name);

  const large = Buffer.alloc(1_000_000, 'x');
  channel.sendToQueue(queue, large);
  channel.sendToQueue(queue, Buffer.alloc(0));
  assert.ok((await messages.next()).content.equals(large), 'many frames');
  assert.equal((await messages.next()).content.length, 0);
});
