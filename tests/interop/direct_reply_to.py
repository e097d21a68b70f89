"""RPC over amq.rabbitmq.reply-to: no reply queue at all."""

import pika

import common

connection = common.connect()
client = connection.channel()
server = connection.channel()
queue = common.unique("direct_reply_to")
server.queue_declare(queue=queue, auto_delete=True)


def on_request(channel, method, properties, body):
    assert properties.reply_to != "amq.rabbitmq.reply-to", "the broker fills in where to"
    reply = pika.BasicProperties(correlation_id=properties.correlation_id)
    channel.basic_publish("", properties.reply_to, body.upper(), reply)
    channel.basic_ack(method.delivery_tag)


answers = []
server.basic_consume(queue, on_request)
client.basic_consume("amq.rabbitmq.reply-to", lambda _c, _m, _p, body: answers.append(body), auto_ack=True)
client.basic_publish("", queue, "hello", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id="1"))
common.eventually("the answer", lambda: connection.process_data_events(0.05) or answers)
assert answers == [b"HELLO"], answers
connection.close()
