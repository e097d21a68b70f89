"""Tutorial 2, the end: with prefetch 1 a busy worker is passed over, without it messages go round in turn."""

import common

connection = common.connect()
publisher = connection.channel()
queue = common.unique("fair")
publisher.queue_declare(queue=queue, auto_delete=True)


def worker(prefetch_count, acks):
    got = []
    channel = connection.channel()
    channel.basic_qos(prefetch_count=prefetch_count)

    def work(_channel, method, _properties, body):
        got.append(int(body))
        if acks:
            channel.basic_ack(method.delivery_tag)

    channel.basic_consume(queue, work)
    return channel, got


def publish(numbers):
    for n in numbers:
        publisher.basic_publish(exchange="", routing_key=queue, body=str(n))


def served(*workers):
    return sorted(n for _, got in workers for n in got)


busy, quick = worker(1, acks=False), worker(1, acks=True)
publish(range(8))
common.eventually("all are taken", lambda: connection.process_data_events(0.05) or served(busy, quick) == [*range(8)])
assert len(busy[1]) == 1, "a worker that has not acked gets no second message"
assert quick[1] == sorted(quick[1]), quick[1]

greedy = worker(0, acks=False), worker(0, acks=False)
for channel, _ in (busy, quick):
    channel.close()
everything = [busy[1][0], *range(10, 20)]
publish(range(10, 20))
common.eventually("all are taken", lambda: connection.process_data_events(0.05) or served(*greedy) == everything)
evenly = sorted(len([n for n in got if n >= 10]) for _, got in greedy)
assert evenly == [5, 5], "round robin"
connection.close()
