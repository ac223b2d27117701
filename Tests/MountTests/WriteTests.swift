import CLinux
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// Local changes of files that are not there yet: the rest still comes from the remote, and never over them.
    @Suite struct Writes {
        private static let size = 3 << 20

        /// A cold file, a change of it, and what must then be in it: seen through the mount, after a remount, and on disk.
        private func check(
            fill: String = "read", _ change: (String, inout [UInt8]) throws -> Void,
            also: (Mirror) throws -> Void = { _ in }
        ) throws {
            try withMirror(mounting: ["--fill", fill]) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: Self.size)
            } _: { mirror throws in
                var expected = Pattern.bytes(0..<Self.size)
                try change(mirror.at("file"), &expected)
                try also(mirror)
                #expect(try mirror.state("file").flags.contains("dirty"))
                #expect(try File.bytes(mirror.at("file")) == expected, "through the mount")
                try mirror.stop()
                try mirror.start(["--fill", fill])
                #expect(try File.bytes(mirror.at("file")) == expected, "after a remount")
                #expect(try mirror.state("file").flags.contains("dirty"))
                try mirror.stop()
                #expect(try File.bytes(mirror.tree + "/file") == expected, "on disk")
            }
        }

        @Test(
            "Writes anywhere, of any length, keep the rest of the file", arguments: ["read", "auto"],
            [
                (0, 1), (5, 10), (Trees.granule - 1, 2), (Trees.granule, Trees.granule), (100_000, 300_000),
                (size - 1, 1), (size - 10, 100), (size + 200_000, 50),
            ])
        func write(fill: String, place: (offset: Int, count: Int)) throws {
            let bytes = Pattern.bytes(0..<place.count, seed: 5)
            try check(fill: fill) { path, expected in
                try File.open(path, O_WRONLY).put(bytes, at: place.offset)
                let end = place.offset + place.count
                if expected.count < end { expected += [UInt8](repeating: 0, count: end - expected.count) }
                expected.replaceSubrange(place.offset..<end, with: bytes)
            }
        }

        @Test("A write fetches the granules at its edges and none of those that it covers")
        func edges() throws {
            try check { path, expected in
                let range = 100_000..<900_000
                try File.open(path, O_WRONLY).put([UInt8](repeating: 3, count: range.count), at: range.lowerBound)
                expected.replaceSubrange(range, with: [UInt8](repeating: 3, count: range.count))
            } also: { mirror throws in
                // Writes reach the daemon in pieces, whose edges may be inside a granule.
                #expect(try mirror.status().counter("granulesFetched") <= 2)
            }
        }

        @Test("Appending adds at the end")
        func append() throws {
            try check { path, expected in
                try shell("printf appended >>\"$1\"", [path])
                expected += Array("appended".utf8)
            }
        }

        @Test(
            "Truncation to any size keeps what is before it, and what grows back is zero",
            arguments: [0, 1, Trees.granule - 1, Trees.granule, 1_000_000, size - 1, size, size + 1, size + 1_000_000],
            [false, true])
        func truncate(to cut: Int, byDescriptor: Bool) throws {
            try check { path, expected in
                let file = try File.open(path, O_RDWR)
                for size in [cut, Self.size + 77] {
                    if byDescriptor {
                        try file.truncate(to: size)
                    } else {
                        _ = try HSMSystem.check { Glibc.truncate(path, size) }
                    }
                    expected =
                        Array(expected.prefix(size)) + [UInt8](repeating: 0, count: max(0, size - expected.count))
                }
            }
        }

        @Test("Opening with O_TRUNC fetches nothing, even when the remote is held")
        func openTruncate() throws {
            for fill in ["auto", "open", "read"] {
                try withMirror(mounting: ["--fill", fill]) { mirror throws in
                    try Pattern.write(mirror.remote("small"), size: 1000)
                    try Pattern.write(mirror.remote("large"), size: Self.size)
                } _: { mirror throws in
                    try mirror.hold()
                    for name in ["small", "large"] {
                        try File.put("new content", mirror.at(name))
                        #expect(try File.bytes(mirror.at(name)) == Array("new content".utf8))
                        #expect(try mirror.state(name).flags.contains("dirty"))
                    }
                    #expect(try mirror.status().counter("fetches") == 0)
                    try mirror.stop()
                    #expect(try File.bytes(mirror.tree + "/large") == Array("new content".utf8))
                }
            }
        }

        @Test("A truncation does not wait for a held fill of what it cuts off; who waited for it reads the end")
        func truncateHeld() throws {
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: Self.size)
            } _: { mirror throws in
                try mirror.hold()
                let reader = try Child([
                    "dd", "if=\(mirror.at("file"))", "bs=4096", "skip=100", "count=1", "status=none",
                ])
                try until("it to wait") { try mirror.status().waiting >= 1 }
                let cut = try Child(["truncate", "-s", "0", mirror.at("file")])
                #expect(try cut.wait(seconds: 5).code == 0)
                let output = try reader.wait(seconds: 10)
                #expect(output.code == 0 && !output.out.utf8.contains { $0 != 0 }, "nothing of the old content")
            }
        }

        @Test(
            "fallocate in its modes does to an incomplete file what it does to a whole one",
            arguments: [
                "-o 100000 -l 200000", "-o 3000000 -l 400000", "-n -o 3000000 -l 400000", "-p -o 100000 -l 200000",
                "-p -o 65536 -l 131072", "-z -o 100000 -l 200000", "-z -o 3000000 -l 400000",
            ])
        func allocate(arguments: String) throws {
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: Self.size)
            } _: { mirror throws in
                let plain = mirror.scratch.path + "/plain"
                try shell("cp \"$1\" \"$2\"", [mirror.remote("file"), plain])
                let codes = try [plain, mirror.at("file")].map {
                    try run(["bash", "-c", "fallocate \(arguments) \"$1\"", "bash", $0]).code
                }
                #expect(codes[0] == codes[1])
                #expect(try File.sameContent(plain, mirror.at("file")))
                try mirror.stop()
                try mirror.start()
                #expect(try File.sameContent(plain, mirror.at("file")))
            }
        }

        @Test(
            "Collapsing and inserting ranges is refused, as FUSE refuses it, and changes nothing",
            arguments: ["-c", "-i"])
        func shift(mode: String) throws {
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: Self.size)
            } _: { mirror throws in
                let output = try run(["fallocate", mode, "-o", "65536", "-l", "131072", mirror.at("file")])
                #expect(output.code == 1 && output.err.contains("not supported"))
                #expect(try File.sameContent(mirror.remote("file"), mirror.at("file")))
            }
        }

        @Test("copy_file_range from and into incomplete files copies the content", arguments: [0, 12_345, 65536])
        func copyRange(offset: Int) throws {
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                try Pattern.write(mirror.remote("from"), size: Self.size, seed: 1)
                try Pattern.write(mirror.remote("into"), size: Self.size, seed: 2)
            } _: { mirror throws in
                let from = try File.open(mirror.at("from"))
                let into = try File.open(mirror.at("into"), O_RDWR)
                var (read, written) = (off_t(offset), off_t(offset / 2))
                var left = 500_000
                while left > 0 {
                    let count = try HSMSystem.check {
                        passhsm_copy_file_range(from.raw, &read, into.raw, &written, left, 0)
                    }
                    try #require(count > 0)
                    left -= Int(count)
                }
                var expected = Pattern.bytes(0..<Self.size, seed: 2)
                let bytes = Pattern.bytes(offset..<offset + 500_000, seed: 1)
                expected.replaceSubrange(offset / 2..<offset / 2 + 500_000, with: bytes)
                #expect(try into.bytes(0..<Self.size) == expected)
                #expect(try !mirror.state("from").flags.contains("dirty"))
                #expect(try mirror.state("into").flags.contains("dirty"))
            }
        }

        @Test("Writing a whole incomplete file granule by granule makes it complete without a fetch")
        func overwriteAll() throws {
            try check { path, expected in
                let file = try File.open(path, O_WRONLY)
                expected = Pattern.bytes(0..<Self.size, seed: 8)
                for start in stride(from: 0, to: Self.size, by: Trees.granule) {
                    try file.put(Array(expected[start..<start + Trees.granule]), at: start)
                }
            } also: { mirror throws in
                #expect(try mirror.status().counter("bytesFetched") == 0)
            }
        }

        @Test(
            "An incomplete file that was made immutable or append-only is made changeable again through the mount",
            arguments: ["i", "a"], ["auto", "open", "read"])
        func unchangeable(flag: String, fill: String) throws {
            try withMirror(mounting: ["--fill", fill]) { mirror throws in
                for name in ["small", "large"] {
                    try Pattern.write(mirror.remote(name), size: name == "small" ? 5000 : Self.size)
                }
            } _: { mirror throws in
                defer {
                    // Beneath the mount, or without one: a test that fails can be tidied up.
                    for place in [mirror.mount, mirror.tree] {
                        _ = try? shell("chattr -f -$1 small large || true", in: place, [flag])
                    }
                }
                let part = 0..<4096
                if fill != "open" { _ = try File.bytes(mirror.at("large"), part) }
                // Setting the flag opens the files, and may fill them.
                try mirror.stop()
                try shell("chattr +$1 small large", in: mirror.tree, [flag])
                try mirror.start(["--fill", fill])
                for name in ["small", "large"] {
                    #expect(File.readError(mirror.at(name)) == EPERM)
                    for call in ["echo x >>$1", "truncate -s 10 $1", "echo x >$1", "rm -f $1"] {
                        let output = try run(["bash", "-c", "cd \"$2\"; \(call)", "bash", name, mirror.mount])
                        #expect(output.code != 0 && output.err.contains("not permitted"), "\(call): \(output)")
                    }
                }
                if fill != "open" { #expect(try File.bytes(mirror.at("large"), part) == Pattern.bytes(part)) }
                #expect(try mirror.status().counter("bytesFetched") == 0)
                try shell("chattr -$1 small large; lsattr small large", in: mirror.mount, [flag])
                for name in ["small", "large"] {
                    #expect(try File.sameContent(mirror.remote(name), mirror.at(name)))
                    try shell("echo x >>$1", in: mirror.mount, [name])
                }
                // And while it is in use.
                try shell(
                    "chattr +$1 large; chattr -$1 large; cmp -n 5000 \"$2\"/large large", in: mirror.mount,
                    [flag, mirror.source])
            }
        }

        @Test("Changed content clears setuid and setgid, as the kernel does it", arguments: [1000, size])
        func killPrivileges(size: Int) throws {
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                try Pattern.write(mirror.remote("program"), size: size)
                try shell("chmod 6777 program", in: mirror.source)
            } _: { mirror throws in
                try shell(
                    "setpriv --reuid 1000 --regid 1000 --clear-groups bash -c 'echo x >>\"$1\"' bash \"$1\"",
                    [mirror.at("program")])
                #expect(try File.stat(mirror.at("program")).st_mode & 0o7777 == 0o777)
            }
        }
    }
}
