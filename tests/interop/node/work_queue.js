// Tutorial 2: two workers with prefetch 1, acks, a nack in between, and what a dead worker held goes to the other.
'use strict';

const {assert, connect, consume, run, unique} = require('./common');

run(async (connection) => {
  const channel = await connection.createChannel();
  const {queue} = await channel.assertQueue(unique('work'), {durable: true});
  for (const n of [0, 1, 2, 3]) channel.sendToQueue(queue, Buffer.from(String(n)), {persistent: true});

  const dying = await connect();
  const dyingChannel = await dying.createChannel();
  await dyingChannel.prefetch(1);
  const held = await (await consume(dyingChannel, queue)).next();
  assert.deepEqual([held.content.toString(), held.fields.redelivered], ['0', false]);

  await channel.prefetch(1);
  const messages = await consume(channel, queue);
  const first = await messages.next();
  assert.equal(first.content.toString(), '1');
  channel.nack(first, false, true);
  const done = [];
  for (const _ of [1, 2, 3]) {
    const message = await messages.next();
    done.push([message.content.toString(), message.fields.redelivered]);
    channel.ack(message);
  }
  assert.deepEqual(done, [['1', true], ['2', false], ['3', false]]);

  await dying.close();
  const last = await messages.next();
  assert.deepEqual([last.content.toString(), last.fields.redelivered], ['0', true]);
  channel.ack(last);
  const {messageCount} = await channel.deleteQueue(queue);
  assert.equal(messageCount, 0);
  assert.equal(await messages.next(), null, 'the broker cancels the consumers of a deleted queue');
});
