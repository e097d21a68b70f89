// The codes of what goes wrong: on a channel, the connection goes on; on the connection, it ends. Arguments: the URI, and the
// code for an unknown exchange type, 503 or 406.
'use strict';

const {assert, closedWith, connect, next, run, unique} = require('./common');

run(async (connection) => {
  const name = unique('codes');
  await (await connection.createChannel()).assertQueue(name, {exclusive: true});
  const other = await connect();
  const soft = [
    [404, connection, (channel) => channel.checkQueue(unique('absent'))],
    [404, connection, (channel) => channel.checkExchange(unique('absent'))],
    [404, connection, (channel) => channel.bindQueue(name, unique('absent'), '')],
    [406, connection, (channel) => channel.assertQueue(name, {exclusive: true, maxLength: 1})],
    [406, connection, (channel) => channel.assertExchange('amq.direct', 'fanout')],
    [406, connection, (channel) => channel.ack({fields: {deliveryTag: 1}})],
    [403, connection, (channel) => channel.assertQueue('amq.mine')],
    [403, connection, (channel) => channel.deleteExchange('amq.direct')],
    [405, other, (channel) => channel.checkQueue(name)],
    [405, other, (channel) => channel.consume(name, () => {})],
  ];
  for (const [code, where, action] of soft) {
    const channel = await where.createChannel();
    assert.equal(await closedWith(channel, () => action(channel)), code, String(action));
  }

  const unknownType = Number(process.argv[3]);
  const channel = await other.createChannel();
  // A hard error in RabbitMQ 3, a soft one in 4.3.
  const closed = next(unknownType === 503 ? other : channel, 'error');
  channel.on('error', () => {});
  channel.assertExchange(name, 'no-such-type').catch(() => {});
  const [error] = await closed;
  assert.equal(error.code, unknownType, error.message);
  if (unknownType !== 503) await other.close();
  await connection.createChannel();
});
