"""How cost grows: with the inodes that a mount knows, with partial files, with the sizes of granules and of files."""

import os
import shutil
import subprocess

import cold
from subjects import PassHSM, tree
from workloads import Driver, Figure, make_tree


class Open:
    name = "open, read 4 KiB, close, with known inodes"


class Memory:
    name = "memory of the daemon for a known inode"


class OpenPartial:
    name = "open a partial file, read 4 KiB that are there, close"


class Fill:
    name = "fill of whole files, 4 readers"


def measure(bench):
    partial_files(bench)
    fills(bench)
    inodes(bench)


def rounds(bench):
    """The number of rounds, which is smaller than elsewhere: there are many variants, and growth shows in few rounds."""
    return min(3, bench.options.rounds)


def record(bench, workload, figure, subject, variant, round_number):
    bench.record(
        part="growth", workload=workload.name, figure="", subject=subject.name, variant=variant, round=round_number,
        value=figure.value, unit=figure.unit, is_rate=figure.is_rate)


def inodes(bench):
    program = bench.options.program
    every = bench.present([
        PassHSM("PassHSM FUSE passthrough", program), PassHSM("PassHSM FUSE cached", program, ["--no-passthrough"]),
        PassHSM("PassHSM fanotify", program, ["--frontend", "fanotify", "--allow-holes"])])
    with open(os.path.join(tree(bench.lower), "small"), "wb") as file:
        file.write(os.urandom(4096))
    for count in bench.sizes.inodes:
        folder = os.path.join(tree(bench.lower), f"growth-{count}")
        make_tree(folder, count)
        # The largest tree takes minutes, and its figures hardly move.
        for round_number in range(1, 1 + (rounds(bench) if count < 1_000_000 else 1)):
            for subject in every:
                bench.say(f"{count} inodes: {subject.name}")
                with bench.attempt(f"{subject.name}: {count} inodes"):
                    known_inodes(bench, subject, folder, count, round_number)
        shutil.rmtree(folder)


def known_inodes(bench, subject, folder, count, round_number):
    path = subject.start(bench.lower, bench.mount)
    try:
        before = subject.process.memory_kib()
        holder = subprocess.Popen(
            [Driver.program, "hold", os.path.join(path, os.path.basename(folder))], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True)
        try:
            holder.stdout.readline()
            grown = subject.process.memory_kib() - before
            result = Driver.run("open-read-close", os.path.join(path, "small"), bench.sizes.opens)
        finally:
            holder.stdin.close()
            holder.wait()
        variant = f"{count} inodes"
        record(bench, Open, Figure(result["seconds"] * 1e6, "us"), subject, variant, round_number)
        record(bench, Memory, Figure(grown * 1024 / count, "bytes"), subject, variant, round_number)
    finally:
        subject.stop()


def partial_files(bench):
    """Files with their first granule present, too large to be filled when they are opened."""
    for count in bench.sizes.partial:
        remote = os.path.join(bench.options.directory, f"remote-{count}")
        shutil.rmtree(remote, ignore_errors=True)
        os.makedirs(remote)
        for number in range(count):
            with open(os.path.join(remote, f"file-{number}"), "wb") as file:
                file.truncate(2 << 20)
        for round_number in range(1, 1 + rounds(bench)):
            for subject in bench.present(cold.cold_subjects(bench.options.program, "latency=0ms", ["--fill", "read"])):
                bench.say(f"{count} partial files: {subject.name}")
                with bench.attempt(f"{subject.name}: {count} partial files"):
                    seconds = cold.on_cold(bench, subject, remote, lambda path: open_partial(bench, path, count))
                    record(bench, OpenPartial, Figure(seconds * 1e6, "us"), subject, f"{count} such files",
                           round_number)
        shutil.rmtree(remote)


def open_partial(bench, path, count):
    for number in range(count):
        file = os.open(os.path.join(path, f"file-{number}"), os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(file, 4096, 0)
        os.close(file)
    return Driver.run("open-read-close", os.path.join(path, "file-0"), bench.sizes.opens // 10)["seconds"]


def fills(bench):
    """Throughput of fills from a directory without delay."""
    for size, count in bench.sizes.fills:
        remote = os.path.join(bench.options.directory, "remote-fill")
        shutil.rmtree(remote, ignore_errors=True)
        os.makedirs(os.path.join(remote, "files"))
        for number in range(count):
            with open(os.path.join(remote, "files", f"file-{number}"), "wb") as file:
                for start in range(0, size, 1 << 20):
                    file.write(os.urandom(min(1 << 20, size - start)))
        for round_number in range(1, 1 + rounds(bench)):
            for granule in ["4K", "64K", "1M"]:
                for subject in bench.present(cold.cold_subjects(bench.options.program, "latency=0ms", (), granule)):
                    bench.say(f"fill of {count} files of {size >> 10} KiB, granules of {granule}: {subject.name}")
                    with bench.attempt(f"{subject.name}: fill, granules of {granule}"):
                        result = cold.on_cold(
                            bench, subject, remote, lambda path: Driver.run("read-all", os.path.join(path, "files"), 4))
                        rate = count * size / result["seconds"] / 2**20
                        record(bench, Fill, Figure(rate, "MiB/s", True), subject,
                               f"{count} files of {size >> 10} KiB, granules of {granule}", round_number)
        shutil.rmtree(remote)
