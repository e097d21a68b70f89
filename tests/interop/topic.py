"""Tutorial 5: patterns."""

import common

connection = common.connect()
channel = connection.channel()
exchange = common.unique("topic_logs")
channel.exchange_declare(exchange=exchange, exchange_type="topic", auto_delete=True)
KEYS = ["kern.critical", "kern.info", "cron.critical", "kern", "a.b.c", ""]
EXPECTED = {
    "#": KEYS,
    "kern.*": ["kern.critical", "kern.info"],
    "*.critical": ["kern.critical", "cron.critical"],
    "kern.#": ["kern.critical", "kern.info", "kern"],
    "#.c": ["a.b.c"],
    "*.*.*": ["a.b.c"],
    "kern": ["kern"],
}
queues = {}
for pattern in EXPECTED:
    queues[pattern] = channel.queue_declare(queue="", exclusive=True).method.queue
    channel.queue_bind(exchange=exchange, queue=queues[pattern], routing_key=pattern)
for key in KEYS:
    channel.basic_publish(exchange=exchange, routing_key=key, body=key)
for pattern, expected in EXPECTED.items():
    received = common.bodies(channel, queues[pattern], len(expected))
    assert received == expected, (pattern, received)
    assert common.is_empty(channel, queues[pattern]), pattern
connection.close()
