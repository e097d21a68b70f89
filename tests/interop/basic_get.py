"""basic.get: empty, in order, the count of what remains, acks, requeue to the old place."""

import common

connection = common.connect()
channel = connection.channel()
queue = common.unique("get")
channel.queue_declare(queue=queue, exclusive=True)
assert channel.basic_get(queue) == (None, None, None)
for n in range(3):
    channel.basic_publish(exchange="", routing_key=queue, body=str(n))


def get(auto_ack=False):
    method, _, body = channel.basic_get(queue, auto_ack)
    return method.delivery_tag, method.redelivered, method.message_count, body


assert get() == (1, False, 2, b"0")
assert get() == (2, False, 1, b"1")
channel.basic_reject(1, requeue=True)
assert get() == (3, True, 1, b"0"), "back in front"
channel.basic_ack(3, multiple=True)
assert get(auto_ack=True) == (4, False, 0, b"2")
assert channel.basic_get(queue) == (None, None, None)
assert channel.queue_declare(queue=queue, passive=True).method.message_count == 0
channel.basic_ack(4)
code = common.closed_with(lambda: channel.basic_get(queue), channel)
assert code == (406, "unknown delivery tag 4"), code
connection.close()
