"""How cost grows: memory and opens with the inodes that a mount knows."""

import os
import subprocess

from subjects import PassHSM, fanotify
from workloads import Driver, Figure, make_tree, run


class Open:
    name = "open, read 4 KiB, close, with known inodes"


class Memory:
    name = "memory of the daemon for a known inode"


def measure(bench):
    program = bench.options.program
    every = bench.present([
        PassHSM("PassHSM FUSE passthrough", program), PassHSM("PassHSM FUSE cached", program, ["--no-passthrough"]),
        fanotify(PassHSM, program)])
    if not os.path.exists(os.path.join(bench.lower, ".passhsm")):
        run([program, "import", "--quiet", bench.remote, bench.lower])
    with open(os.path.join(bench.lower, "small"), "wb") as file:
        file.write(os.urandom(4096))
    for count in bench.sizes.inodes:
        make_tree(os.path.join(bench.lower, f"growth-{count}"), count)
        for round_number in range(1, 4):
            for subject in every:
                bench.say(f"{count} inodes: {subject.name}")
                measure_one(bench, subject, count, round_number)


def measure_one(bench, subject, count, round_number):
    path = subject.start(bench.lower, bench.mount)
    try:
        before = subject.process.memory_kib()
        holder = subprocess.Popen(
            [Driver.program, "hold", os.path.join(path, f"growth-{count}")], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True)
        try:
            holder.stdout.readline()
            grown = subject.process.memory_kib() - before
            result = Driver.run("open-read-close", os.path.join(path, "small"), bench.sizes.opens)
        finally:
            holder.stdin.close()
            holder.wait()
        for workload, figure in (
            (Open, Figure(result["seconds"] * 1e6, "us")), (Memory, Figure(grown * 1024 / count, "bytes"))
        ):
            bench.record(
                part="growth", workload=workload.name, figure="", subject=subject.name, variant=f"{count} inodes",
                round=round_number, value=figure.value, unit=figure.unit, is_rate=False)
    finally:
        subject.stop()
