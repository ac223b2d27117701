import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

/// Every system call that reads of a cold file gets the source's bytes, however a mount fills.
extension Scenario {
    private static let callSize = 400_000
    /// Each has a cold file of its own.
    private static let ways = [
        "pread", "preadv", "direct", "sendfile", "splice", "range", "mapped", "forbidden", "grown", "beyond", "advised",
        "path", "handle", "exchanged", "other", "linked", "copied",
        "removed",
    ]

    private static let script = """
        import ctypes, mmap, os, sys, time
        mount, source, is_native, size = sys.argv[1], sys.argv[2], sys.argv[3] == "fanotify", 400_000
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
        libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        count = 0

        def cold(name, flags=os.O_RDONLY): return os.open(f"{mount}/{name}", flags)

        def check(name, got, offset, of=None):
            global count
            count += 1
            want = open(f"{source}/{of or name}", "rb").read()[offset:offset + len(got)]
            if not got or got != want: print("wrong:", name, "zeros" if not any(got) else "")

        def mapped(name, length, offset=0, protection=mmap.PROT_READ):
            return libc.mmap(None, length, protection, mmap.MAP_SHARED, cold(name), offset)

        check("pread", os.pread(cold("pread"), 100, 70_001), 70_001)
        buffer = bytearray(4096)
        os.preadv(cold("preadv"), [buffer], 200_000)
        check("preadv", buffer, 200_000)
        aligned = mmap.mmap(-1, 8192)
        os.preadv(cold("direct", os.O_DIRECT), [aligned], 131_072)
        check("direct", aligned[:], 131_072)
        r, w = os.pipe()
        os.sendfile(w, cold("sendfile"), 140_000, 4096)
        check("sendfile", os.read(r, 9999), 140_000)
        os.splice(cold("splice"), w, 4096, offset_src=210_000)
        check("splice", os.read(r, 9999), 210_000)
        new = os.open(f"{mount}/new", os.O_RDWR | os.O_CREAT)
        os.copy_file_range(cold("range"), new, 100_000, 65_536)
        check("range", os.pread(new, 200_000, 0), 65_536)
        check("mapped", ctypes.string_at(mapped("mapped", 8192, 131_072), 8192), 131_072)
        address = mapped("forbidden", 8192, 65_536, 0)
        libc.mprotect(address, 8192, mmap.PROT_READ)
        check("forbidden", ctypes.string_at(address, 8192), 65_536)
        # A mapping that grows raises no event.
        address = libc.mremap(mapped("grown", 4096), 4096, size, 1)
        check("grown", ctypes.string_at(address, size), 0)
        check("beyond", ctypes.string_at(mapped("beyond", 1 << 20), size), 0)
        # Read-ahead raises none either, and caches what is there.
        file = cold("advised")
        os.posix_fadvise(file, 0, size, os.POSIX_FADV_WILLNEED)
        time.sleep(0.1)
        check("advised", os.pread(file, size, 0), 0)
        check("path", os.pread(os.open(f"/proc/self/fd/{cold('path', os.O_PATH)}", os.O_RDONLY), 5000, 300_000), 300_000)
        if is_native:
            handle = ctypes.create_string_buffer(8 + 128)
            handle[0] = 128
            libc.name_to_handle_at(-100, f"{mount}/handle".encode(), handle, ctypes.byref(ctypes.c_int()), 0)
            file = libc.open_by_handle_at(os.open(mount, os.O_RDONLY), handle, os.O_RDONLY)
            check("handle", os.pread(file, 5000, 100_000), 100_000)
        libc.renameat2(-100, f"{mount}/exchanged".encode(), -100, f"{mount}/other".encode(), 2)
        check("exchanged", os.pread(cold("exchanged"), size, 0), 0, "other")
        check("other", os.pread(cold("other"), size, 0), 0, "exchanged")
        os.link(f"{mount}/linked", f"{mount}/link")
        check("linked", os.pread(cold("link"), 5000, 390_000), 390_000)
        private = mmap.mmap(cold("copied"), size, access=mmap.ACCESS_COPY)
        private[65_540:65_541] = b"x"
        check("copied", private[65_541:200_000], 65_541)
        file = cold("removed")
        os.unlink(f"{mount}/removed")
        check("removed", os.pread(file, 5000, 200_000), 200_000)
        print(count)
        """

    private static func everyCall(_ fill: String) -> Scenario {
        Scenario(name: "every way to read a cold file gives the source's bytes", mounting: ["--fill", fill]) {
            mirror throws in
            for (index, name) in ways.enumerated() {
                try Pattern.write(mirror.remote(name), size: callSize, seed: index)
            }
        } body: { mirror, frontEnd throws in
            let output = try run(["python3", "-c", script, mirror.mount, mirror.source, frontEnd.rawValue])
            #expect(output.code == 0, "\(output)")
            #expect(output.out == (frontEnd == .fanotify ? "18\n" : "17\n"), "\(output.out)")
            let state = try mirror.state("pread")
            #expect(
                fill == "open" || state.presentBytes < callSize || frontEnd == .fuse, "nothing was filled by ranges")
        }
    }

    private static func engines(_ fill: String) -> Scenario {
        let verify = "--size=4m --bs=64k --verify=crc32c --verify_fatal=1 --minimal"
        return Scenario(name: "fio finds every block by io_uring(7), libaio and mmap(2)", mounting: ["--fill", fill]) {
            mirror throws in
            for name in ["ring", "aio", "map"] {
                try shell("fio --name=\(name) --filename=\(name) --rw=write --do_verify=0 \(verify)", in: mirror.source)
            }
        } body: { mirror, _ throws in
            for (name, engine) in [("ring", "io_uring"), ("aio", "libaio --direct=1"), ("map", "mmap")] {
                let read = "--readonly --rw=randread --iodepth=8 --ioengine=\(engine) \(verify)"
                try shell("fio --name=\(name) --filename=\(name) \(read)", in: mirror.mount)
                #expect(try mirror.state(name).flags.isEmpty, "\(name)")
            }
        }
    }

    private static func program(_ fill: String) -> Scenario {
        Scenario(name: "a cold program runs, also when a part of it was read before", mounting: ["--fill", fill]) {
            mirror throws in
            try shell(
                """
                cp "$(command -v git)" program; printf '#!/bin/sh\\necho script\\n' >script
                cp program part; head -c 8M /dev/urandom >>part; chmod +x *
                """, in: mirror.source)
        } body: { mirror, frontEnd throws in
            #expect(try shell("./program --version; ./script", in: mirror.mount).hasSuffix("script\n"))
            #expect(try mirror.state("program").flags.isEmpty)
            let before = try mirror.status().counter("bytesFetched")
            let file = try File.open(mirror.at("part"))
            #expect(try file.bytes(700_001..<700_100) == File.bytes(mirror.remote("part"), 700_001..<700_100))
            let fetched = try mirror.status().counter("bytesFetched") - before
            #expect(fill == "open" || fetched < 8 << 20, "nothing was filled by ranges")
            #expect(try shell("./part --version", in: mirror.mount).hasPrefix("git version"))
            #expect(try mirror.state("part").flags.isEmpty)
            // What is mapped is fetched whole before.
            if frontEnd == .fanotify { try mirror.await("part", "complete") { $0.state == "dual" } }
        }
    }

    static let calls: [Scenario] = ["open", "read"].flatMap { [everyCall($0), engines($0), program($0)] }
}
