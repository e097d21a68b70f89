"""A headers exchange: all and any."""

import pika

import common

connection = common.connect()
channel = connection.channel()
exchange = common.unique("headers")
channel.exchange_declare(exchange=exchange, exchange_type="headers", auto_delete=True)


def bound(arguments):
    queue = channel.queue_declare(queue="", exclusive=True).method.queue
    channel.queue_bind(exchange=exchange, queue=queue, arguments=arguments)
    return queue


every = bound({"x-match": "all", "format": "pdf", "pages": 3})
some = bound({"x-match": "any", "format": "pdf", "pages": 3})
MESSAGES = [
    ("both", {"format": "pdf", "pages": 3, "other": True}),
    ("one", {"format": "pdf", "pages": 4}),
    ("none", {"format": "zip"}),
    ("no headers", None),
]
for body, headers in MESSAGES:
    channel.basic_publish(exchange, "", body, pika.BasicProperties(headers=headers))
received = common.receive(channel, every, 1)
assert [body for _, _, body in received] == [b"both"], received
assert received[0][1].headers == MESSAGES[0][1], "headers arrive as they were sent"
assert common.bodies(channel, some, 2) == ["both", "one"]
assert common.is_empty(channel, every) and common.is_empty(channel, some)
connection.close()
