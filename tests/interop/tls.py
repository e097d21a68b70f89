"""amqps://, once with guest's password and once with a certificate: tls.py HOST PORT USER CA CERT KEY"""

import ssl
import sys

import common
import pika

host, port, user, ca, cert, key = sys.argv[1:]


def connect(credentials, with_certificate):
    context = ssl.create_default_context(cafile=ca)
    if with_certificate:
        context.load_cert_chain(cert, key)
    parameters = pika.ConnectionParameters(
        host,
        int(port),
        credentials=credentials,
        ssl_options=pika.SSLOptions(context, host),
        socket_timeout=common.LIMIT_S,
        blocked_connection_timeout=common.LIMIT_S,
    )
    return pika.BlockingConnection(parameters)


password = pika.PlainCredentials("guest", "guest")
external = pika.credentials.ExternalCredentials()

for credentials, with_certificate in [(password, False), (password, True), (external, True)]:
    connection = connect(credentials, with_certificate)
    channel = connection.channel()
    channel.confirm_delivery()
    queue = channel.queue_declare("", exclusive=True).method.queue
    # Many TLS records, in both directions.
    body = b"x" * 1_000_000
    name = user if credentials is external else "guest"
    channel.basic_publish("", queue, body, pika.BasicProperties(user_id=name), mandatory=True)
    [(_, properties, received)] = common.receive(channel, queue, 1)
    assert received == body
    assert properties.user_id == name
    connection.close()

try:
    connect(external, False)
except pika.exceptions.AMQPConnectionError:
    pass
else:
    raise AssertionError("without a certificate there is no name")
