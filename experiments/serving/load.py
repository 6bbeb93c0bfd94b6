"""Many robots at once: round trips, memory over many requests, and a killed server."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tqdm
from scipy import stats

from ambient_jax.policy.policy import Policy
from ambient_jax.serve.client import Client
from experiments.serving import policies, processes

_ASKED = 16  # different requests, each with its seed
_SAMPLES = 50  # of the memory
# Seconds between timed calls: threads of the local policy spin a while after its call, which would
# slow down the server if both are on one core. A robot also waits between its requests.
_PAUSE = 0.02


def questions(policy: Policy) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """Returns requests with seeds, and the chunks that the policy itself answers."""
    asked = [policies.observation(policy, seed) for seed in range(_ASKED)]
    chunks = [
        np.asarray(policy({n: v[None] for n, v in one.items()}, seed))[0]
        for seed, one in enumerate(asked)
    ]
    return [{**one, "seed": seed} for seed, one in enumerate(asked)], chunks


def is_answer(got: np.ndarray, expected: np.ndarray) -> bool:
    """Whether a chunk is the expected one, to the rounding of batches of different sizes."""
    return got.shape == expected.shape and np.allclose(got, expected, rtol=1e-4, atol=1e-4)


def timed(client: Client, request: dict[str, Any]) -> list[float]:
    """Returns milliseconds of a round trip, and those of them that the policy took."""
    begin = time.perf_counter()
    answer = client.infer(request)
    return [1e3 * (time.perf_counter() - begin), answer["policy_timing"]["infer_ms"]]


def round_trip(
    policy: Policy, timed: Callable[[dict[str, Any]], Sequence[float]], calls: int
) -> dict[str, Any]:
    """Returns durations [ms] of local calls and of round trips, one after the other in turn.

    ``timed(request)`` measures a round trip, and what the policy took of it; "beside_policy_ms" is
    the median of the difference.
    """
    request = {**policies.observation(policy), "seed": 0}
    rows = {n: v[None] for n, v in request.items() if n != "seed"}
    local: list[float] = []
    remote: list[Sequence[float]] = []
    for _ in range(10):  # warm
        np.asarray(policy(rows, 0))
        timed(request)
    for _ in tqdm.trange(calls, desc="round trips", unit="call"):
        time.sleep(_PAUSE)
        begin = time.perf_counter()
        np.asarray(policy(rows, 0))
        local.append(1e3 * (time.perf_counter() - begin))
        time.sleep(_PAUSE)
        remote.append(timed(request))
    there, within = np.array(remote).T
    here, median = float(np.median(local)), float(np.median(there))
    quartiles = {"local": np.percentile(local, (25, 75)), "served": np.percentile(there, (25, 75))}
    return {
        "calls": calls,
        "bytes": sum(v.nbytes for v in rows.values()),
        "local_ms": here,
        "served_ms": median,
        "limit_ms": 1.2 * here + 2,
        "beside_policy_ms": float(np.median(there - within)),
        "quartiles_ms": quartiles,
    }


def many(server: processes.Served, policy: Policy, robots: int, requests: int) -> dict[str, Any]:
    """Asks ``requests`` times from ``robots`` clients at once and compares every answer.

    Returns requests a second, rows in a batch, wrong answers, and the server's memory [MiB] with
    the slope [MiB per 10^5 requests] of the last 80% of its samples and its 95% interval.
    """
    asked, chunks = questions(policy)
    numbers, wrong, batches, latest = itertools.count(), [], [], []
    memory: list[tuple[int, float]] = []
    every = max(requests // _SAMPLES, 1)
    bar = tqdm.tqdm(total=requests, desc=f"{robots} robots", unit="request")

    def robot():
        with Client("127.0.0.1", server.port, patience=10, timeout=300) as client:
            while (number := next(numbers)) < requests:
                which = number % _ASKED
                begin = time.perf_counter()
                answer = client.infer(asked[which])
                if number % 10 == 0:
                    latest.append(time.perf_counter() - begin)
                    batches.append(answer["server_timing"]["batch"])
                if not is_answer(answer["actions"], chunks[which]):
                    wrong.append(number)
                if number % every == 0:
                    memory.append((number, server.memory()))
                bar.update()

    begin = time.perf_counter()
    _together([robot] * robots)
    took = time.perf_counter() - begin
    bar.close()
    samples = np.array(sorted(memory))[len(memory) // 5 :]
    slope, margin = 0.0, 0.0
    if np.ptp(samples[:, 1]):  # a fit of equal numbers has no standard error
        fit = stats.linregress(samples[:, 0] / 1e5, samples[:, 1])
        slope = fit.slope
        margin = stats.t.ppf(0.975, max(len(samples) - 2, 1)) * fit.stderr
    return {
        "robots": robots,
        "requests": requests,
        "wrong_answers": len(wrong),
        "requests_per_second": requests / took,
        "median_ms": 1e3 * float(np.median(latest)),
        "mean_rows_in_a_batch": float(np.mean(batches)),
        "memory_mib": [[int(n), round(m, 2)] for n, m in sorted(memory)],
        "memory_first_mib": memory[0][1],
        "memory_last_mib": sorted(memory)[-1][1],
        "slope_mib_per_100k": [slope, slope - margin, slope + margin],
    }


def killed(
    checkpoint: str | os.PathLike, policy: Policy, robots: int, kills: int, python: str
) -> dict[str, Any]:
    """Kills the server (SIGKILL) in the middle of requests and starts it again, ``kills`` times.

    ``robots`` of our clients, and as many of openpi's if its ``python`` is given, go on asking;
    every answer is compared. Returns counts, and seconds from a ready server to the first answer
    that all of our clients have had.
    """
    asked, chunks = questions(policy)
    port, stop = processes.free_port(), threading.Event()
    answers, wrong, waits, stock_answers = [0] * robots, [], [], [0]

    def robot(index):
        with Client("127.0.0.1", port, patience=600) as client:
            while not stop.is_set():
                which = (answers[index] + index) % _ASKED
                if not is_answer(client.infer(asked[which])["actions"], chunks[which]):
                    wrong.append(which)
                answers[index] += 1

    def stock():
        ask = processes.Stock(python, port, robots)
        while not stop.is_set():
            for got, expected in zip(ask(asked), chunks, strict=True):
                if not is_answer(got["actions"], expected):
                    wrong.append("openpi")
                stock_answers[0] += 1
        ask.close()

    jobs = [lambda i=i: robot(i) for i in range(robots)] + [stock] * bool(python)
    threads = [threading.Thread(target=job) for job in jobs]
    for time_of in range(kills + 1):
        with processes.served(checkpoint, "--max_batch=16", port=port) as server:
            ready, before, theirs = time.perf_counter(), list(answers), stock_answers[0]
            if not time_of:
                for thread in threads:
                    thread.start()
            while min(np.subtract(answers, before)) < 1:
                _alive(threads)
                time.sleep(0.005)
            if time_of:
                waits.append(time.perf_counter() - ready)
            while min(np.subtract(answers, before)) < 10 or (python and stock_answers[0] == theirs):
                _alive(threads)
                time.sleep(0.02)
            if time_of < kills:
                server.process.send_signal(signal.SIGKILL)
                server.process.wait()
            else:
                stop.set()
                for thread in threads:
                    thread.join(300)
    return {
        "kills": kills,
        "robots": robots,
        "answers": sum(answers),
        "answers_of_openpi_clients": stock_answers[0],
        "wrong_answers": len(wrong),
        "seconds_until_all_were_answered": waits,
        "still_waiting": sum(thread.is_alive() for thread in threads),
    }


def _alive(threads):
    if not all(thread.is_alive() for thread in threads):
        raise ChildProcessError("a client has ended, see above: expected it to go on asking")


def _together(jobs):
    errors: list[BaseException] = []

    def kept(job):
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=kept, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
