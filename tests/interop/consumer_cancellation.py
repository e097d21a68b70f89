"""Consumers end in three ways: cancelled by the client, by the broker when the queue goes, and with their channel."""

import common

connection = common.connect()
channel = connection.channel()


def consume(queue, **options):
    got = []
    on_message = lambda _c, method, _p, body: got.append((body, method.delivery_tag))
    return channel.basic_consume(queue, on_message, **options), got


def consumers(queue):
    return connection.channel().queue_declare(queue=queue, passive=True).method.consumer_count


# By the client: what it holds stays its own until it is acked, and nothing more comes.
queue = channel.queue_declare(queue=common.unique("cancel"), exclusive=True).method.queue
tag, got = consume(queue, consumer_tag="mine")
assert tag == "mine" and consumers(queue) == 1
channel.basic_publish("", queue, "held")
common.eventually("a delivery", lambda: connection.process_data_events(0.05) or got)
channel.basic_cancel(tag)
assert consumers(queue) == 0
channel.basic_publish("", queue, "waits")
channel.basic_ack(got[0][1])
assert [body for body, _ in got] == [b"held"]
assert common.bodies(channel, queue, 1) == ["waits"]

# By the broker: connections that can take it are told.
told = []
channel.add_on_cancel_callback(lambda frame: told.append(frame.method.consumer_tag))
doomed = channel.queue_declare(queue=common.unique("doomed")).method.queue
tag, _ = consume(doomed)
connection.channel().queue_delete(doomed)
common.eventually("the broker's cancel", lambda: connection.process_data_events(0.05) or told)
assert told == [tag], told

# An auto-delete queue goes with its last consumer.
passing = channel.queue_declare(queue=common.unique("passing"), auto_delete=True).method.queue
tag, _ = consume(passing)
channel.basic_cancel(tag)
code = common.closed_with(lambda: consumers(passing))
assert code == (404, f"no queue '{passing}'"), code

# With an exclusive consumer nobody else gets one.
lonely = channel.queue_declare(queue=common.unique("lonely"), exclusive=True).method.queue
consume(lonely, exclusive=True)
code = common.closed_with(lambda: connection.channel().basic_consume(lonely, print))
assert code == (403, "in exclusive use"), code
connection.close()
