"""The replies of a worker that gives no result: `rpc_errors.py URL SERVICE`, whose method `fail` returns an error of its own.

Only the service's own error is data. Every other error is in the headers alone: an empty body, and so no content_type.
"""

import json
import sys

import pika

import common


def call(channel, routing_key, body, **properties):
    reply_to = channel.queue_declare(queue="", exclusive=True).method.queue
    properties = pika.BasicProperties(reply_to=reply_to, correlation_id="1", **properties)
    channel.basic_publish("rpc", routing_key, body, properties, mandatory=True)
    [(_, reply, answer)] = common.receive(channel, reply_to, 1)
    assert reply.type == "rpc.error", reply
    return reply, answer


service = sys.argv[2]
connection = common.connect()
channel = connection.channel()
JSON = {"content_type": "application/json"}

without_data = [
    ("bad_request", f"{service}.fail", b"{", JSON),
    ("bad_request", f"{service}.fail", b"\xc1", {}),
    ("bad_request", f"{service}.fail", b"{}", {"content_type": "image/png"}),
    ("no_such_method", f"{service}.nope", b"{}", JSON),
    ("bad_version", f"{service}.fail", b"{}", {**JSON, "headers": {"rpc-v": 2}}),
    ("bad_version", f"{service}.fail", b"{}", {**JSON, "headers": {"rpc-v": -1}}),
    ("bad_version", f"{service}.fail", b"{}", {**JSON, "headers": {"rpc-v": "1.0"}}),
    ("bad_version", f"{service}.fail", b"{}", {**JSON, "headers": {"rpc-version": -1}}),
    ("internal", f"{service}.panic", b"{}", JSON),
]
for code, routing_key, body, properties in without_data:
    reply, answer = call(channel, routing_key, body, **properties)
    assert reply.headers["rpc-code"] == code, (code, reply)
    assert (answer, reply.content_type) == (b"", None), (code, answer, reply)
    assert reply.headers["rpc-message"], reply

reply, answer = call(channel, f"{service}.fail", b"{}", **JSON)
assert (reply.headers["rpc-code"], reply.content_type) == ("service", "application/json"), reply
assert json.loads(answer) == "sold out", answer
connection.close()
