"""Workloads on complete files. Each measures on a path, and returns its figures by name."""

import json
import os
import resource
import shutil
import subprocess
import time


class Figure:
    def __init__(self, value, unit, is_rate=False):
        self.value = value
        self.unit = unit
        # More is better; otherwise less is.
        self.is_rate = is_rate


class Workload:
    """`prepare` makes its files in the source, once, which are all fetched before anything is measured; `measure` runs in
    a subject, at its path."""

    def __init__(self, name, sizes):
        self.name = name
        self.sizes = sizes

    def prepare(self, source):
        pass

    def warm(self, path):
        """Prepares the caches of the subject. This is not measured."""

    def measure(self, path, subject):
        raise NotImplementedError

    def clean(self, path):
        pass


def children_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(command, cwd=None, environment=None):
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment)
    if result.returncode:
        raise RuntimeError(f"{os.path.basename(command[0])} {command[1]}: {result.stderr.strip()[-500:]}")
    return result.stdout


class Driver:
    """The latency loops, see driver/main.swift."""

    program = None

    @classmethod
    def run(cls, *arguments):
        return json.loads(run([cls.program, *map(str, arguments)]))


class Fio(Workload):
    def __init__(self, name, sizes, pattern, block, jobs=1):
        super().__init__(name, sizes)
        self.pattern, self.block, self.jobs = pattern, block, jobs

    def prepare(self, source):
        path = os.path.join(source, "large")
        if not os.path.exists(path):
            block = os.urandom(1 << 20)
            with open(path, "wb") as file:
                for _ in range(self.sizes.large >> 20):
                    file.write(block)

    def file(self, path):
        return os.path.join(path, "written" if "write" in self.pattern else "large")

    def warm(self, path):
        if "read" in self.pattern:
            with open(self.file(path), "rb") as file:
                while file.read(1 << 20):
                    pass

    def measure(self, path, subject):
        report = json.loads(run([
            "fio", "--output-format=json", "--name=job", f"--filename={self.file(path)}", f"--rw={self.pattern}",
            f"--bs={self.block}", f"--size={self.sizes.large}", f"--numjobs={self.jobs}", "--thread",
            "--group_reporting", "--invalidate=0", "--ioengine=psync", "--allow_file_create=1", "--randrepeat=1",
            f"--direct={int(subject.opens_direct)}",
            f"--runtime={self.sizes.milliseconds}ms", "--time_based" if self.pattern == "randread" else "--end_fsync=1"]))
        side = report["jobs"][0]["write" if "write" in self.pattern else "read"]
        if self.block == "4k":
            return {"operations": Figure(side["iops"], "1/s", True)}
        return {"throughput": Figure(side["bw_bytes"] / 2**20, "MiB/s", True)}

    def clean(self, path):
        if "write" in self.pattern and os.path.exists(self.file(path)):
            os.unlink(self.file(path))


class MapRead(Fio):
    def __init__(self, sizes):
        super().__init__("mmap, random pages", sizes, "read", "4k")

    def measure(self, path, subject):
        result = Driver.run("map-at", self.file(path), self.sizes.loads, 1)
        return {"load": Figure(result["seconds"] * 1e6, "us")}


class OpenReadClose(Workload):
    """Of a file that was fetched, and of one that was made in the subject and never had a remote copy."""

    def __init__(self, sizes):
        super().__init__("open, read 4 KiB, close", sizes)

    def prepare(self, source):
        with open(os.path.join(source, "small"), "wb") as file:
            file.write(os.urandom(4096))

    def warm(self, path):
        with open(os.path.join(path, "own"), "wb") as file:
            file.write(os.urandom(4096))
        for name in ("small", "own"):
            Driver.run("open-read-close", os.path.join(path, name), 100)

    def measure(self, path, subject):
        def latency(name):
            result = Driver.run("open-read-close", os.path.join(path, name), self.sizes.opens)
            return Figure(result["seconds"] * 1e6, "us")

        return {"fetched file": latency("small"), "local file": latency("own")}

    def clean(self, path):
        os.unlink(os.path.join(path, "own"))


class Names(Workload):
    def __init__(self, sizes):
        super().__init__("create, stat, unlink", sizes)

    def warm(self, path):
        # Of one that failed.
        self.clean(path)

    def measure(self, path, subject):
        folder = os.path.join(path, "names")
        os.makedirs(folder, exist_ok=True)
        result = Driver.run("names", folder, self.sizes.names)
        return {call: Figure(result[f"{call}_seconds"] * 1e6, "us") for call in ("create", "stat", "unlink")}

    def clean(self, path):
        shutil.rmtree(os.path.join(path, "names"), ignore_errors=True)


class Walk(Workload):
    """The first walk is the subject's first look at the tree, the second follows at once."""

    def __init__(self, sizes):
        super().__init__("stat walk", sizes)

    def prepare(self, source):
        make_tree(os.path.join(source, "tree"), self.sizes.tree)

    def measure(self, path, subject):
        tree = os.path.join(path, "tree")
        first, second = Driver.run("walk", tree), Driver.run("walk", tree)
        return {
            "first": Figure(first["seconds"] / first["entries"] * 1e6, "us"),
            "second": Figure(second["seconds"] / second["entries"] * 1e6, "us"),
        }


def make_tree(path, count):
    """A hundred files a directory, a hundred directories a directory."""
    if os.path.exists(path):
        return
    for start in range(0, count, 100):
        folder = os.path.join(path, f"{start // 10000:03}", f"{start // 100:05}")
        os.makedirs(folder)
        for number in range(start, min(count, start + 100)):
            with open(os.path.join(folder, f"file-{number}"), "w") as file:
                file.write(f"{number}\n")


class Command(Workload):
    """Work of a developer on a source tree."""

    def __init__(self, name, sizes, command, before=None, folder="source"):
        super().__init__(name, sizes)
        self.command, self.before, self.folder = command, before, folder

    def prepare(self, source):
        make_source(os.path.join(source, self.folder), self.sizes.source)

    def warm(self, path):
        if self.before:
            run(["bash", "-c", self.before], cwd=os.path.join(path, self.folder))

    def measure(self, path, subject):
        start = time.monotonic()
        run(["bash", "-c", self.command], cwd=os.path.join(path, self.folder))
        return {"time": Figure(time.monotonic() - start, "s")}

    def clean(self, path):
        run(["bash", "-c", "rm -rf unpacked *.o program"], cwd=os.path.join(path, self.folder))


def make_source(path, count):
    """A C program of `count` modules in a git repository, and an archive of them."""
    if os.path.exists(path):
        return
    os.makedirs(path)
    for number in range(count):
        body = "".join(f"static int f{n}(int x) {{ return x * {n} + {number}; }}\n" for n in range(60))
        total = " + ".join(f"f{n}(x)" for n in range(60))
        with open(os.path.join(path, f"module{number}.c"), "w") as file:
            file.write(f"{body}int module{number}(int x) {{ return {total}; }}\n")
    with open(os.path.join(path, "main.c"), "w") as file:
        calls = "".join(f"    x += module{n}(x);\n" for n in range(count))
        declared = "".join(f"int module{n}(int x);\n" for n in range(count))
        file.write(f"{declared}int main(int x, char **y)\n{{\n{calls}    return x & 1;\n}}\n")
    with open(os.path.join(path, "Makefile"), "w") as file:
        file.write("objects = $(patsubst %.c,%.o,$(wildcard *.c))\nprogram: $(objects)\n\t$(CC) -o $@ $^\n")
    run(["bash", "-c", "git init -q . && git add -A && "
         "git -c user.name=bench -c user.email=bench@localhost commit -qm sources && tar cf archive.tar *.c"], cwd=path)


def warm_workloads(sizes):
    return [
        Fio("sequential read, 1 MiB", sizes, "read", "1M"),
        Fio("sequential write, 1 MiB", sizes, "write", "1M"),
        Fio("random read 4 KiB, 1 thread", sizes, "randread", "4k"),
        Fio("random read 4 KiB, 4 threads", sizes, "randread", "4k", 4),
        Fio("random read 4 KiB, 16 threads", sizes, "randread", "4k", 16),
        MapRead(sizes),
        OpenReadClose(sizes),
        Names(sizes),
        Walk(sizes),
        Command("untar", sizes, "mkdir unpacked && tar xf archive.tar -C unpacked", "rm -rf unpacked"),
        Command("git status", sizes, "git -c safe.directory='*' status --porcelain", "git -c safe.directory='*' status"),
        Command("compile", sizes, f"make -s -j{os.cpu_count()}", "rm -f *.o program"),
    ]
