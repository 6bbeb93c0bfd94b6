"""openpi's own clients, run by a Python that has ``openpi-client`` and nothing of this project.

python stock.py PORT CLIENTS

Reads jobs from standard input, four bytes of length and a message each, and writes as many results:
``{"requests": [...]}`` answers each, ``{"timed": request}`` times one round trip.
"""

import concurrent.futures
import struct
import sys
import time

import websockets.exceptions
from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy


class Robot:
    """A client that is made anew when its connection is lost, as openpi's runtime would be."""

    def __init__(self, port):
        self.port, self.client = port, WebsocketClientPolicy("127.0.0.1", port)

    def infer(self, request):
        for _ in range(600):
            try:
                if self.client is None:
                    self.client = WebsocketClientPolicy("127.0.0.1", self.port)
                return self.client.infer(request)
            except (OSError, EOFError, websockets.exceptions.WebSocketException):
                self.client = None
                time.sleep(0.2)
        raise ConnectionError("no server for two minutes")


def main(port, count):
    robots = [Robot(port) for _ in range(count)]
    write(robots[0].client.get_server_metadata())
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        while header := sys.stdin.buffer.read(4):
            job = msgpack_numpy.unpackb(sys.stdin.buffer.read(*struct.unpack("!I", header)))
            if "timed" in job:
                write(timed(robots[0], job["timed"]))
                continue
            requests = job["requests"]
            answers = [None] * len(requests)

            def ask(first, requests=requests, answers=answers):
                for i in range(first, len(requests), count):
                    answers[i] = robots[first].infer(requests[i])

            list(pool.map(ask, range(count)))
            write(answers)


def timed(robot, request):
    """Returns milliseconds of a round trip, and those of them that the policy took."""
    begin = time.perf_counter()
    answer = robot.infer(request)
    return [1e3 * (time.perf_counter() - begin), answer["policy_timing"]["infer_ms"]]


def write(message):
    data = msgpack_numpy.packb(message)
    sys.stdout.buffer.write(struct.pack("!I", len(data)) + data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
