"""Tutorial 1: one message through the default exchange."""

import common

connection = common.connect()
channel = connection.channel()
queue = common.unique("hello")
channel.queue_declare(queue=queue, auto_delete=True)
channel.basic_publish(exchange="", routing_key=queue, body="Hello World!")
[(method, _, body)] = common.receive(channel, queue, 1)
assert body == b"Hello World!", body
assert (method.exchange, method.routing_key, method.redelivered) == ("", queue, False), method
connection.close()
