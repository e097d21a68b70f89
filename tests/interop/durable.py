"""Tutorial 2, the middle: a durable queue, persistent messages, and a declaration that does not match."""

import pika

import common

connection = common.connect()
channel = connection.channel()
queue = common.unique("task_queue")
channel.queue_declare(queue=queue, durable=True)
persistent = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
channel.basic_publish(exchange="", routing_key=queue, body="kept", properties=persistent)
channel.close()

channel = connection.channel()
code = common.closed_with(lambda: channel.queue_declare(queue=queue, durable=False))
assert code == (406, "durable"), code

channel = connection.channel()
again = channel.queue_declare(queue=queue, durable=True).method
assert (again.queue, again.message_count, again.consumer_count) == (queue, 1, 0), again
connection.close()

connection = common.connect()
channel = connection.channel()
[(_, properties, body)] = common.receive(channel, queue, 1)
assert (properties.delivery_mode, body) == (2, b"kept"), (properties, body)
channel.queue_delete(queue)
connection.close()
