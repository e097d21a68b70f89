"""`trace_server.py URL QUEUE COUNT` answers COUNT requests with the headers that they name, each with its Python type."""

import sys

import common


def named_headers(properties, body):
    headers = properties.headers or {}
    values = [headers.get(name) for name in body.decode().split()]
    return " ".join(f"{type(value).__name__} {value}" for value in values)


if __name__ == "__main__":
    common.serve(sys.argv[2], int(sys.argv[3]), lambda: print("ready", flush=True), named_headers)
