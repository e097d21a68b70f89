"""Tutorial 4: routing by severity."""

import common

connection = common.connect()
channel = connection.channel()
exchange = common.unique("direct_logs")
channel.exchange_declare(exchange=exchange, exchange_type="direct", auto_delete=True)


def bound(*severities):
    queue = channel.queue_declare(queue="", exclusive=True).method.queue
    for severity in severities:
        channel.queue_bind(exchange=exchange, queue=queue, routing_key=severity)
    return queue


everything, errors = bound("info", "warning", "error"), bound("error")
for severity in ["info", "warning", "error", "debug"]:
    channel.basic_publish(exchange=exchange, routing_key=severity, body=severity)
assert common.bodies(channel, everything, 3) == ["info", "warning", "error"]
assert common.bodies(channel, errors, 1) == ["error"]
channel.queue_unbind(exchange=exchange, queue=everything, routing_key="error")
channel.basic_publish(exchange=exchange, routing_key="error", body="again")
assert common.bodies(channel, errors, 1) == ["again"]
assert common.is_empty(channel, everything) and common.is_empty(channel, errors)
connection.close()
