// basic.get: nothing, the rest's count, reject to the old place, and dead letters.
'use strict';

const {assert, run, unique} = require('./common');

run(async (connection) => {
  const channel = await connection.createChannel();
  const dead = (await channel.assertQueue('', {exclusive: true})).queue;
  const {queue} = await channel.assertQueue(unique('get'), {
    exclusive: true,
    deadLetterExchange: '',
    deadLetterRoutingKey: dead,
  });
  assert.equal(await channel.get(queue), false);
  for (const n of [0, 1]) channel.sendToQueue(queue, Buffer.from(String(n)));
  const first = await channel.get(queue);
  assert.deepEqual([first.content.toString(), first.fields.messageCount, first.fields.redelivered], ['0', 1, false]);
  channel.reject(first, true);
  const again = await channel.get(queue);
  assert.deepEqual([again.content.toString(), again.fields.messageCount, again.fields.redelivered], ['0', 1, true]);
  channel.reject(again, false);
  const second = await channel.get(queue, {noAck: true});
  assert.equal(second.content.toString(), '1');

  const letter = await channel.get(dead, {noAck: true});
  const [death] = letter.properties.headers['x-death'];
  assert.deepEqual([death.queue, death.reason, death.count], [queue, 'rejected', 1]);
  assert.equal(letter.content.toString(), '0');
});
