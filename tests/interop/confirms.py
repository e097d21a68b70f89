"""Publisher confirms: acked, returned before they are acked, refused by a full queue; and what may not be mixed."""

import pika

import common

connection = common.connect()
channel = connection.channel()
queue = common.unique("confirms")
channel.queue_declare(queue=queue, exclusive=True, arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
channel.confirm_delivery()
for n in range(2):
    channel.basic_publish(exchange="", routing_key=queue, body=str(n), mandatory=True)
try:
    channel.basic_publish(exchange="", routing_key=queue, body="too many")
    raise AssertionError("a full queue that rejects publishes must nack")
except pika.exceptions.NackError:
    pass
try:
    channel.basic_publish(exchange="amq.direct", routing_key=queue, body="nobody", mandatory=True)
    raise AssertionError("an unroutable mandatory message must be returned")
except pika.exceptions.UnroutableError as error:
    [returned] = error.messages
    assert (returned.method.reply_code, returned.method.reply_text) == (312, "NO_ROUTE"), returned.method
    assert returned.body == b"nobody"
channel.basic_publish(exchange="amq.direct", routing_key=queue, body="nobody")
assert common.bodies(channel, queue, 2) == ["0", "1"]

code = common.closed_with(channel.tx_select, channel)
assert code == (406, "cannot switch from confirm to tx mode"), code
connection.close()
