"""What every script here needs: a channel on the broker of the command line, and waiting with a deadline."""

import os
import sys
import time

import pika

LIMIT_S = 10


def connect(url=None, blocked_limit_s=LIMIT_S):
    parameters = pika.URLParameters(url or sys.argv[1])
    parameters.socket_timeout = LIMIT_S
    parameters.blocked_connection_timeout = blocked_limit_s
    return pika.BlockingConnection(parameters)


def unique(name):
    """A name no other run on the same broker uses."""
    return f"interop.{name}.{os.getpid()}"


def receive(channel, queue, count, auto_ack=True):
    """Consumes `count` messages: a list of (method, properties, body)."""
    messages = []
    for message in channel.consume(queue, auto_ack=auto_ack, inactivity_timeout=LIMIT_S):
        assert message != (None, None, None), f"{len(messages)} of {count} messages after {LIMIT_S} s"
        messages.append(message)
        if len(messages) == count:
            break
    channel.cancel()
    return messages


def bodies(channel, queue, count):
    return [body.decode() for _, _, body in receive(channel, queue, count)]


def is_empty(channel, queue):
    method, _, _ = channel.basic_get(queue, auto_ack=True)
    return method is None


def serve(queue, count, ready, answer):
    """Answers `count` requests with `answer(properties, body)`."""
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(queue=queue, auto_delete=True)
    channel.basic_qos(prefetch_count=1)
    answered = 0

    def on_request(channel, method, properties, body):
        nonlocal answered
        channel.basic_publish(
            exchange="",
            routing_key=properties.reply_to,
            properties=pika.BasicProperties(correlation_id=properties.correlation_id),
            body=answer(properties, body),
        )
        channel.basic_ack(delivery_tag=method.delivery_tag)
        answered += 1
        if answered == count:
            channel.stop_consuming()

    channel.basic_consume(queue=queue, on_message_callback=on_request)
    ready()
    channel.start_consuming()
    connection.close()


def eventually(what, condition, limit_s=LIMIT_S):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.02)


def closed_with(action, channel=None):
    """Runs `action`, which must make the broker close the channel: the code, and what its text is about."""
    try:
        action()
    except pika.exceptions.ChannelClosedByBroker as closed:
        assert channel is None or channel.is_closed
        return closed.reply_code, essence(closed.reply_text)
    raise AssertionError("the broker must close the channel")


def essence(text):
    """RabbitMQ's texts begin with the code's name, and some go on to where it was."""
    text = text.split(" - ", 1)[-1]
    if text.startswith("inequivalent arg "):
        return text.split("'")[1]
    if " in exclusive use" in text:
        return "in exclusive use"
    return text.split(" in vhost ")[0]
