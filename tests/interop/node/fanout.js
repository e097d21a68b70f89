// Tutorial 3: every queue gets its copy.
'use strict';

const {assert, bodies, consume, run, unique} = require('./common');

run(async (connection) => {
  const channel = await connection.createChannel();
  const {exchange} = await channel.assertExchange(unique('logs'), 'fanout', {autoDelete: true});
  const subscribers = [];
  for (const _ of [1, 2, 3]) {
    const {queue} = await channel.assertQueue('', {exclusive: true});
    assert.match(queue, /^amq\.gen-/);
    await channel.bindQueue(queue, exchange, 'ignored');
    subscribers.push(await consume(channel, queue, {noAck: true}));
  }
  for (const text of ['one', 'two']) channel.publish(exchange, '', Buffer.from(text));
  for (const messages of subscribers) assert.deepEqual(await bodies(messages, 2), ['one', 'two']);
});
