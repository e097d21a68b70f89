"""What every script here needs: a channel on the broker of the command line, and waiting with a deadline."""

import os
import sys
import time

import pika

LIMIT_S = 10


def connect(url=None):
    parameters = pika.URLParameters(url or sys.argv[1])
    parameters.socket_timeout = LIMIT_S
    parameters.blocked_connection_timeout = LIMIT_S
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


def eventually(what, condition):
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {LIMIT_S} s: {what}"
        time.sleep(0.02)
