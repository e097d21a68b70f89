// Tutorial 6: a Fibonacci server, called through a queue of the client's own and through direct reply-to.
'use strict';

const {assert, connect, consume, run, unique} = require('./common');

function fib(n) {
  let [a, b] = [0n, 1n];
  for (let i = 0; i < n; i += 1) [a, b] = [b, a + b];
  return a;
}

run(async (connection) => {
  const server = await (await connect()).createChannel();
  const {queue} = await server.assertQueue(unique('rpc_queue'), {autoDelete: true});
  await server.prefetch(1);
  await server.consume(queue, (request) => {
    const {correlationId, replyTo} = request.properties;
    const answer = String(fib(Number(request.content.toString())));
    server.sendToQueue(replyTo, Buffer.from(answer), {correlationId});
    server.ack(request);
  });

  const client = await connection.createChannel();
  const own = (await client.assertQueue('', {exclusive: true})).queue;
  for (const replyTo of [own, 'amq.rabbitmq.reply-to']) {
    const replies = await consume(client, replyTo, {noAck: true});
    for (const [n, expected] of [[0, '0'], [30, '832040'], [90, '2880067194370816120']]) {
      client.sendToQueue(queue, Buffer.from(String(n)), {correlationId: `fib ${n}`, replyTo});
      const reply = await replies.next();
      assert.equal(reply.properties.correlationId, `fib ${n}`);
      assert.equal(reply.content.toString(), expected);
    }
  }
  await server.connection.close();
});
