"""`trace_server.py URL QUEUE COUNT` answers COUNT requests with the headers that they name, each with its Python type."""

import sys

import pika

import common


def serve(queue, count, ready):
    connection = common.connect()
    channel = connection.channel()
    channel.queue_declare(queue=queue, auto_delete=True)
    channel.basic_qos(prefetch_count=1)
    answered = 0

    def on_request(channel, method, properties, body):
        nonlocal answered
        headers = properties.headers or {}
        values = [headers.get(name) for name in body.decode().split()]
        channel.basic_publish(
            exchange="",
            routing_key=properties.reply_to,
            properties=pika.BasicProperties(correlation_id=properties.correlation_id),
            body=" ".join(f"{type(value).__name__} {value}" for value in values),
        )
        channel.basic_ack(delivery_tag=method.delivery_tag)
        answered += 1
        if answered == count:
            channel.stop_consuming()

    channel.basic_consume(queue=queue, on_message_callback=on_request)
    ready()
    channel.start_consuming()
    connection.close()


if __name__ == "__main__":
    serve(sys.argv[2], int(sys.argv[3]), lambda: print("ready", flush=True))
