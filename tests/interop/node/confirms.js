// Publisher confirms: a callback for each message, and a nack from a queue that is full.
'use strict';

const {assert, closedWith, run, unique} = require('./common');

run(async (connection) => {
  const channel = await connection.createConfirmChannel();
  const {queue} = await channel.assertQueue(unique('confirms'), {
    exclusive: true,
    maxLength: 100,
    arguments: {'x-overflow': 'reject-publish'},
  });
  const publish = (n) =>
    new Promise((resolve) => {
      channel.sendToQueue(queue, Buffer.from(String(n)), {}, (nacked) => resolve(nacked === null));
    });
  const outcomes = await Promise.all([...Array(110).keys()].map(publish));
  assert.deepEqual(outcomes, [...Array(100).fill(true), ...Array(10).fill(false)]);
  assert.equal((await channel.purgeQueue(queue)).messageCount, 100);
  assert.equal(await publish('again'), true);

  const code = await closedWith(channel, () => channel.publish(unique('nowhere'), '', Buffer.from('x')));
  assert.equal(code, 404);
});
