"""Tutorial 2: a durable queue, two workers with prefetch 1, and what a dead worker held goes to the other."""

import pika

import common

connection = common.connect()
channel = connection.channel()
queue = common.unique("work")
channel.queue_declare(queue=queue, durable=True)
channel.confirm_delivery()
for n in range(6):
    channel.basic_publish(
        exchange="",
        routing_key=queue,
        body=str(n),
        properties=pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent),
        mandatory=True,
    )

dying = common.connect()
dying_channel = dying.channel()
dying_channel.basic_qos(prefetch_count=1)
held = []
dying_channel.basic_consume(queue, lambda _c, method, _p, body: held.append((method, body)))
common.eventually("the first worker holds one", lambda: dying.process_data_events(0.05) or held)
assert len(held) == 1 and held[0][1] == b"0", held

worker = connection.channel()
worker.basic_qos(prefetch_count=1)
done = []


def work(worker_channel, method, _properties, body):
    done.append((int(body), method.redelivered))
    worker_channel.basic_ack(method.delivery_tag)


worker.basic_consume(queue, work)
common.eventually("five are done", lambda: connection.process_data_events(0.05) or len(done) == 5)
assert done == [(n, False) for n in range(1, 6)], done
assert len(held) == 1, "prefetch 1: nothing new for a worker that has not acked"
dying.close()
common.eventually("the sixth is done", lambda: connection.process_data_events(0.05) or len(done) == 6)
assert done[-1] == (0, True), done

channel.queue_delete(queue)
try:
    channel.basic_publish(exchange="", routing_key=queue, body="nobody", mandatory=True)
    raise AssertionError("an unroutable mandatory message must be returned")
except pika.exceptions.UnroutableError:
    pass
connection.close()
