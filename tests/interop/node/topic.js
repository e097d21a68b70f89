// Tutorial 5: patterns.
'use strict';

const {assert, bodies, consume, run, unique} = require('./common');

const KEYS = ['kern.critical', 'kern.info', 'cron.critical', 'kern', 'a.b.c', ''];
const EXPECTED = {
  '#': KEYS,
  'kern.*': ['kern.critical', 'kern.info'],
  '*.critical': ['kern.critical', 'cron.critical'],
  'kern.#': ['kern.critical', 'kern.info', 'kern'],
  '#.c': ['a.b.c'],
  '*.*.*': ['a.b.c'],
};

run(async (connection) => {
  const channel = await connection.createConfirmChannel();
  const {exchange} = await channel.assertExchange(unique('topic'), 'topic', {autoDelete: true});
  const queues = {};
  for (const pattern of Object.keys(EXPECTED)) {
    queues[pattern] = (await channel.assertQueue('', {exclusive: true})).queue;
    await channel.bindQueue(queues[pattern], exchange, pattern);
  }
  for (const key of KEYS) channel.publish(exchange, key, Buffer.from(key));
  await channel.waitForConfirms();
  for (const [pattern, expected] of Object.entries(EXPECTED)) {
    const {messageCount} = await channel.checkQueue(queues[pattern]);
    assert.equal(messageCount, expected.length, pattern);
    const messages = await consume(channel, queues[pattern], {noAck: true});
    assert.deepEqual(await bodies(messages, expected.length), expected, pattern);
  }
});
