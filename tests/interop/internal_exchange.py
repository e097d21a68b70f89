"""An internal exchange: reached through another exchange, refused to publishers."""

import common

connection = common.connect()
channel = connection.channel()
outer, inner = common.unique("outer"), common.unique("inner")
channel.exchange_declare(exchange=outer, exchange_type="fanout", auto_delete=True)
channel.exchange_declare(exchange=inner, exchange_type="fanout", auto_delete=True, internal=True)
queue = channel.queue_declare(queue="", exclusive=True).method.queue
channel.queue_bind(queue, inner)
channel.exchange_bind(destination=inner, source=outer)
channel.basic_publish(outer, "", "through the other")
assert common.bodies(channel, queue, 1) == ["through the other"]

refused = connection.channel()
refused.confirm_delivery()
code = common.closed_with(lambda: refused.basic_publish(inner, "", "straight"), refused)
assert code == (403, f"cannot publish to internal exchange '{inner}'"), code
assert common.is_empty(channel, queue)
connection.close()
