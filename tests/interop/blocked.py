"""A broker short of memory: publishers are told and held back, others are served, and everything arrives in the end.

Prints `published`, whereupon memory has to get short, and `blocked`, whereupon there has to be enough again.
"""

import sys

import common

LIMIT_S = 30  # the other side may have to run rabbitmqctl

connection = common.connect(blocked_limit_s=2 * LIMIT_S)
events = []
connection.add_on_connection_blocked_callback(lambda _, frame: events.append(frame.method.reason))
connection.add_on_connection_unblocked_callback(lambda _, frame: events.append("unblocked"))
channel = connection.channel()
other = common.connect()
other_channel = other.channel()
other_channel.basic_qos(prefetch_count=1)
queue = channel.queue_declare(queue=common.unique("blocked"), durable=True).method.queue
channel.basic_publish("", queue, "early")
assert common.bodies(channel, queue, 1) == ["early"]

print("published", flush=True)
late = []


def publish_until_blocked():
    if not events:
        late.append(f"late {len(late)}")
        channel.basic_publish("", queue, late[-1])
        connection.process_data_events(0.05)
    return events


common.eventually("connection.blocked", publish_until_blocked, LIMIT_S)
assert events == ["low on memory"], events

# A message published now waits on our side of the socket. A connection that has not published is served, and is not notified.
late.append("last")
channel.basic_publish("", queue, "last")
taken = other_channel.queue_declare(queue=queue, passive=True).method.message_count
print(f"{taken} of {len(late)} were taken", file=sys.stderr)
assert taken < len(late)

print("blocked", flush=True)
common.eventually("connection.unblocked", lambda: connection.process_data_events(0.05) or events[1:], LIMIT_S)
assert events == ["low on memory", "unblocked"], events
assert common.bodies(other_channel, queue, len(late)) == late
channel.queue_delete(queue)
connection.close()
other.close()
