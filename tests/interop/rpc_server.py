"""The tutorial's Fibonacci server: `rpc_server.py URL QUEUE COUNT` answers COUNT requests and ends."""

import sys

import common


def fib(n):
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def serve(queue, count, ready):
    common.serve(queue, count, ready, lambda _, body: str(fib(int(body))))


if __name__ == "__main__":
    serve(sys.argv[2], int(sys.argv[3]), lambda: print("ready", flush=True))
