"""Tutorial 3: publish/subscribe with server-named exclusive queues."""

import common

connection = common.connect()
channel = connection.channel()
exchange = common.unique("logs")
channel.exchange_declare(exchange=exchange, exchange_type="fanout", auto_delete=True)
queues = [channel.queue_declare(queue="", exclusive=True).method.queue for _ in range(3)]
assert len(set(queues)) == 3 and all(queue.startswith("amq.gen-") for queue in queues), queues
channel.basic_publish(exchange=exchange, routing_key="", body="to nobody yet")
for queue in queues:
    channel.queue_bind(exchange=exchange, queue=queue)
channel.basic_publish(exchange=exchange, routing_key="ignored", body="info: Hello World!")
for queue in queues:
    assert common.bodies(channel, queue, 1) == ["info: Hello World!"]
    assert common.is_empty(channel, queue)
connection.close()
