"""What is measured on files that have to be fetched: each time on a lower directory that was just imported."""

import os
import shutil
import subprocess
import time

from figures import median
from machine import drop_caches
from subjects import PassHSM, fanotify
from workloads import Driver, Figure, Workload, make_source, run


class ColdWorkload(Workload):
    """`prepare` makes the files in the remote directory."""


class FirstByte(ColdWorkload):
    """The first 4 KiB of each of some files."""

    def __init__(self, sizes):
        super().__init__("cold: first byte", sizes)

    def prepare(self, remote):
        folder = os.path.join(remote, "medium")
        if not os.path.exists(folder):
            os.makedirs(folder)
            for number in range(20):
                with open(os.path.join(folder, f"file-{number}"), "wb") as file:
                    file.write(os.urandom(16 << 20))

    def measure(self, path):
        folder = os.path.join(path, "medium")
        times = []
        for name in sorted(os.listdir(folder)):
            start = time.monotonic()
            file = os.open(os.path.join(folder, name), os.O_RDONLY)
            os.pread(file, 4096, 0)
            times.append(time.monotonic() - start)
            os.close(file)
        return {"latency": Figure(median(times) * 1e3, "ms")}


class WholeFile(ColdWorkload):
    def __init__(self, sizes):
        super().__init__("cold: whole file", sizes)

    def prepare(self, remote):
        folder = os.path.join(remote, "large")
        if not os.path.exists(folder):
            os.makedirs(folder)
            block = os.urandom(1 << 20)
            with open(os.path.join(folder, "file"), "wb") as file:
                for _ in range(self.sizes.large >> 20):
                    file.write(block)

    def measure(self, path):
        result = Driver.run("read-all", os.path.join(path, "large"), 1)
        return {"throughput": Figure(result["bytes"] / result["seconds"] / 2**20, "MiB/s", True)}


class ColdRandom(WholeFile):
    def __init__(self, sizes):
        super().__init__(sizes)
        self.name = "cold: random 4 KiB of a large file"

    def measure(self, path):
        result = Driver.run("read-at", os.path.join(path, "large", "file"), 50, 4096, 1, 7)
        return {"latency": Figure(result["median_seconds"] * 1e3, "ms")}


class SmallFiles(ColdWorkload):
    def __init__(self, sizes):
        super().__init__("cold: small files, 16 readers", sizes)

    def prepare(self, remote):
        folder = os.path.join(remote, "small")
        if not os.path.exists(folder):
            os.makedirs(folder)
            for number in range(self.sizes.small):
                with open(os.path.join(folder, f"file-{number}"), "wb") as file:
                    file.write(os.urandom(16384))

    def measure(self, path):
        result = Driver.run("read-all", os.path.join(path, "small"), 16)
        return {"files": Figure(result["files"] / result["seconds"], "1/s", True)}


class Grep(ColdWorkload):
    def __init__(self, sizes):
        super().__init__("cold: grep -r", sizes)

    def prepare(self, remote):
        make_source(os.path.join(remote, "source"), self.sizes.source)

    def measure(self, path):
        start = time.monotonic()
        subprocess.run(["grep", "-rc", "not to be found", os.path.join(path, "source")], stdout=subprocess.DEVNULL)
        return {"time": Figure(time.monotonic() - start, "s")}


class Copy:
    """What filling is compared with: the same bytes copied into a lower directory by cp(1), and read there."""

    name = "cp, then native"
    absence = None
    process = None

    def start(self, remote, lower, mountpoint):
        self.remote, self.lower = remote, lower
        return lower

    def before(self, workload):
        """What a reader waits for, and is measured with it."""
        folder = {"WholeFile": "large", "ColdRandom": "large", "SmallFiles": "small", "Grep": "source",
                  "FirstByte": "medium"}[type(workload).__name__]
        run(["cp", "-a", os.path.join(self.remote, folder), self.lower])

    def stop(self):
        pass


class ColdMount:
    """A mount of PassHSM over a directory that was just imported."""

    def __init__(self, name, program, options=()):
        self.mount = PassHSM(name, program, options)
        self.name, self.absence, self.program = name, self.mount.absence, program

    @property
    def process(self):
        return self.mount.process

    def start(self, remote, lower, mountpoint):
        run([self.program, "import", "--quiet", remote, lower])
        return self.mount.start(lower, mountpoint)

    def stop(self):
        self.mount.stop()


def empty(directory):
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    drop_caches()


def cold_workloads(sizes):
    return [FirstByte(sizes), WholeFile(sizes), ColdRandom(sizes), SmallFiles(sizes), Grep(sizes)]


def remotes(is_quick):
    """The delays and bandwidths that the remote is made to have, by what they are called."""
    some = {"directory": "latency=0ms", "20 ms": "latency=20ms"}
    return some if is_quick else {**some, "5 ms": "latency=5ms", "20 ms, 100 MB/s": "latency=20ms,bandwidth=100M"}


def cold_subjects(program, remote, options=()):
    """Both front ends, as `options` want them."""
    options = ["--simulate", remote, *options]
    return [ColdMount("PassHSM FUSE", program, options), fanotify(ColdMount, program, options)]
