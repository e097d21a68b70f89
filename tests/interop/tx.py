"""Transactions: publishes and acks wait for the commit, a rollback forgets them."""

import common

connection = common.connect()
channel, other = connection.channel(), connection.channel()
queue = common.unique("tx")
channel.queue_declare(queue=queue, exclusive=True)


def waiting():
    return other.queue_declare(queue=queue, passive=True).method.message_count


channel.tx_select()
channel.basic_publish(exchange="", routing_key=queue, body="rolled back")
channel.tx_rollback()
channel.basic_publish(exchange="", routing_key=queue, body="committed")
assert waiting() == 0
channel.tx_commit()
assert waiting() == 1

method, _, body = channel.basic_get(queue)
assert body == b"committed", body
channel.basic_ack(method.delivery_tag)
channel.tx_rollback()
channel.basic_recover(requeue=True)
assert waiting() == 1, "the ack was rolled back"
method, _, _ = channel.basic_get(queue)
assert method.redelivered
channel.basic_ack(method.delivery_tag)
channel.tx_commit()
channel.basic_recover(requeue=True)
assert waiting() == 0

code = common.closed_with(other.tx_commit, other)
assert code == (406, "channel is not transactional"), code
connection.close()
