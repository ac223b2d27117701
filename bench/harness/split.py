"""Where the time of a fill goes: the daemon's own sums beside what the reader saw."""

import json
import os
import time

import cold
from workloads import run

READS = 200
SIZE = 4096


class Split:
    name = "a fill of one random 4 KiB read"


def counters(program, path):
    return json.loads(run([program, "status", path, "--json"]))["counters"]


def measure(bench):
    """Every part in microseconds a read; the reads do not overlap, so that sums and means agree."""
    file = cold.WholeFile(bench.sizes)
    remote = file.remote(bench.remote)
    file.prepare(remote)
    variants = {"directory": "latency=0ms", "20 ms": "latency=20ms"}
    for variant, simulated in variants.items():
        for round_number in range(1, bench.options.rounds + 1):
            for subject in bench.present(cold.cold_subjects(bench.options.program, simulated, ["--fill", "read"])):
                bench.say(f"split of a fill, {variant}: {subject.name}")
                with bench.attempt(f"{subject.name}: {Split.name}"):
                    figures = cold.on_cold(
                        bench, subject, remote, lambda path: measure_one(bench, path, round_number))
                    for name, microseconds in figures.items():
                        bench.record(
                            part="split", workload=Split.name, figure=name, subject=subject.name, variant=variant,
                            round=round_number, value=microseconds, unit="us", is_rate=False)


def measure_one(bench, path, seed):
    """Every read is of a fetch unit of its own, so that each is one fill."""
    name = os.path.join(path, "large", "file")
    file = os.open(name, os.O_RDONLY)
    unit = max(SIZE, os.fstat(file).st_size // READS // SIZE * SIZE)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    before = counters(bench.options.program, path)
    # Far from each other, and never the next one: no read-ahead.
    order = sorted(range(READS), key=lambda place: (place * 7919 + seed) % READS)
    start = time.monotonic()
    for place in order:
        os.pread(file, SIZE, place * unit)
    elapsed = time.monotonic() - start
    os.close(file)
    time.sleep(0.1)
    after = counters(bench.options.program, path)
    parts = {
        key: (after[f"{key}Nanoseconds"] - before[f"{key}Nanoseconds"]) / 1e3 / READS
        for key in ("wait", "answer", "queue", "remote", "write")}
    seen = elapsed * 1e6 / READS
    return {
        "seen by the reader": seen,
        "kernel, to the daemon and back": seen - parts["wait"] - parts["answer"],
        "engine": parts["wait"] - parts["queue"] - parts["remote"] - parts["write"],
        "waiting for a thread": parts["queue"],
        "remote": parts["remote"],
        "lower write": parts["write"],
        "answer": parts["answer"],
    }
