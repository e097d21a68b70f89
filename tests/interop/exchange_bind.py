"""Exchange-to-exchange bindings: one copy for each queue, whatever the paths; unbinding; a cycle ends."""

import common

connection = common.connect()
channel = connection.channel()
source, middle, sink = (common.unique(name) for name in ("source", "middle", "sink"))
for exchange, kind in ((source, "topic"), (middle, "fanout"), (sink, "direct")):
    channel.exchange_declare(exchange=exchange, exchange_type=kind)
queue = channel.queue_declare(queue="", exclusive=True).method.queue
channel.exchange_bind(destination=middle, source=source, routing_key="logs.#")
channel.exchange_bind(destination=sink, source=middle)
channel.exchange_bind(destination=sink, source=source, routing_key="*.error")
channel.exchange_bind(destination=source, source=sink, routing_key="logs.error")
channel.queue_bind(queue, sink, "logs.error")
channel.confirm_delivery()
channel.basic_publish(source, "logs.error", "one copy", mandatory=True)
assert common.bodies(channel, queue, 1) == ["one copy"]
assert common.is_empty(channel, queue)

channel.exchange_unbind(destination=sink, source=middle)
channel.exchange_unbind(destination=sink, source=source, routing_key="*.error")
channel.basic_publish(source, "logs.error", "nobody")
assert common.is_empty(channel, queue)

for exchange in (source, middle, sink):
    channel.exchange_delete(exchange)
code = common.closed_with(lambda: channel.exchange_bind(destination="amq.fanout", source=source), channel)
assert code == (404, f"no exchange '{source}'"), code
connection.close()
