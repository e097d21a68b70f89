"""Tutorial 6: RPC, client and server both in pika."""

import threading

import rpc_client
import rpc_server

import common

queue = common.unique("rpc_queue")
ready = threading.Event()
server = threading.Thread(target=rpc_server.serve, args=(queue, 3, ready.set), daemon=True)
server.start()
assert ready.wait(common.LIMIT_S), "the server does not start"
for n, expected in [(0, "0"), (10, "55"), (30, "832040")]:
    answer = rpc_client.call("", queue, str(n))
    assert answer == expected, (n, answer)
server.join(common.LIMIT_S)
assert not server.is_alive(), "the server does not end"
