"""A call in ten lines: `rpc_client.py URL EXCHANGE ROUTING_KEY BODY [CONTENT_TYPE]` prints the answer."""

import sys

import pika

import common


def call(exchange, routing_key, body, content_type=None):
    connection = common.connect()
    channel = connection.channel()
    reply_to = channel.queue_declare(queue="", exclusive=True).method.queue
    properties = pika.BasicProperties(reply_to=reply_to, correlation_id="1", content_type=content_type)
    channel.basic_publish(exchange, routing_key, body, properties)
    [(_, reply, answer)] = common.receive(channel, reply_to, 1)
    assert reply.correlation_id == "1", reply
    connection.close()
    return answer.decode()


if __name__ == "__main__":
    print(call(*sys.argv[2:]), flush=True)
