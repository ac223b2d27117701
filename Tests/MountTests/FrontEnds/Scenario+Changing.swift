import CLinux
import Glibc
import HSMSystem
import TestSupport
import Testing

extension Scenario {
    /// `content` with `bytes` at `offset`.
    private static func patched(_ content: [UInt8], _ bytes: [UInt8], at offset: Int) -> [UInt8] {
        var result = content + [UInt8](repeating: 0, count: max(0, offset + bytes.count - content.count))
        result.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        return result
    }

    /// Changes the cold file `a`, and expects `expected` of it at once, dirty, and after a restart.
    private static func change(
        _ name: String, mounting: [String] = [], _ expected: @escaping @Sendable ([UInt8]) -> [UInt8],
        by change: @escaping @Sendable (String) throws -> Void
    ) -> Scenario {
        Scenario(name: name, mounting: mounting) { mirror, frontEnd throws in
            try change(mirror.at("a"))
            try mirror.await("a", "dirty") { $0.flags.contains("dirty") }
            let expected = expected(Scenario.content(0))
            let isRight = try mirror.content("a") == expected
            #expect(isRight, "at once")
            try mirror.restart(frontEnd, mounting)
            let isStillRight = try mirror.content("a") == expected
            #expect(isStillRight, "after a restart")
            #expect(try mirror.state("a").flags.contains("dirty"))
            let output = try passhsm("release", mirror.at("a"))
            #expect(output.code == 1 && output.err.contains("local changes"))
        }
    }

    /// How times are set, of a file that may be offline.
    private static let setters = [
        "touch -c -m -d @981173106 \"$1\"", "python3 -c 'import os,sys; os.utime(sys.argv[1], (5, 981173106))' \"$1\"",
        """
        python3 -c 'import os,sys
        f = os.open(sys.argv[1], os.O_RDONLY); os.pread(f, 1, 0); os.utime(f, (5, 981173106))' "$1"
        """,
        "cp -p --attributes-only \"$2/dated\" \"$1\"", "rsync -t --size-only \"$2/dated\" \"$1\"",
    ]

    static let changing: [Scenario] = [
        Scenario(name: "a modification time that a user sets of a file that is not there stays") { mirror throws in
            for index in 0..<setters.count * 2 {
                try Pattern.write(mirror.remote("f\(index)"), size: index % 2 == 0 ? 70_000 : size, seed: index)
            }
            mkdir(mirror.scratch.path + "/other", 0o755)
            try shell(
                "touch -d 2020-01-01 *; head -c 70000 /dev/zero >../other/dated; touch -d @981173106 ../other/dated",
                in: mirror.source)
        } body: { mirror, frontEnd throws in
            for index in 0..<setters.count * 2 {
                let (name, setter) = ("f\(index)", setters[index / 2])
                // What rsync copies by size only has that size.
                if setter.hasPrefix("rsync") && index % 2 == 1 { continue }
                try shell(setter, [mirror.at(name), mirror.scratch.path + "/other"])
                for isLater in [false, true] {
                    #expect(try File.stat(mirror.at(name)).st_mtim.tv_sec == 981_173_106, "\(setter), \(isLater)")
                    #expect(try File.sameContent(mirror.at(name), mirror.remote(name)))
                    try mirror.await(name, "complete") { $0.state == "dual" }
                    usleep(200_000)
                }
            }
            try mirror.stop()
            try mirror.start(frontEnd.arguments)
            #expect(try File.stat(mirror.at("f0")).st_mtim.tv_sec == 981_173_106)
        },
        Scenario(name: "a modification time that is set while a file fills stays") { mirror, _ throws in
            try mirror.hold()
            let readers = try ["a", "b"].map { try Child(["cmp", mirror.at($0), mirror.remote($0)]) }
            try until("a waiting reader") { try mirror.status().waiting >= 1 }
            for name in ["a", "b"] {
                try shell("python3 -c 'import os,sys; os.utime(sys.argv[1], (5, 981173106))' \"$1\"", [mirror.at(name)])
            }
            mirror.letGo()
            for reader in readers { #expect(try reader.wait(seconds: 60).code == 0) }
            for name in ["a", "b"] {
                try mirror.await(name, "complete") { $0.state == "dual" }
                #expect(try File.stat(mirror.at(name)).st_mtim.tv_sec == 981_173_106)
            }
        },
        change("a write into the middle of a cold file") {
            patched($0, [1, 2, 3], at: 100_000)
        } by: { path throws in
            try File.open(path, O_WRONLY).put([1, 2, 3], at: 100_000)
        },
        change("a write into a cold file that is filled by ranges", mounting: ["--fill", "read"]) {
            patched($0, [UInt8](repeating: 9, count: 200_000), at: 65_000)
        } by: { path throws in
            try File.open(path, O_RDWR).put([UInt8](repeating: 9, count: 200_000), at: 65_000)
        },
        change("a write behind the end of a cold file") {
            patched($0, [7], at: Scenario.size + 70_000)
        } by: { path throws in
            try File.open(path, O_WRONLY).put([7], at: Scenario.size + 70_000)
        },
        change("appending to a cold file") {
            $0 + Array("more\n".utf8)
        } by: {
            try shell("echo more >>\"$1\"", [$0])
        },
        change("O_TRUNC of a cold file") { _ in
            Array("new\n".utf8)
        } by: {
            try shell("echo new >\"$1\"", [$0])
        },
        change("truncate(2) of a cold file by its path") {
            Array($0[..<100_000])
        } by: { path throws in
            #expect(truncate(path, 100_000) == 0)
        },
        change("truncate(2) to a page of a cold file that is filled by ranges", mounting: ["--fill", "read"]) {
            Array($0[..<8192])
        } by: { path throws in
            #expect(truncate(path, 8192) == 0)
        },
        change("ftruncate(2) down and up again") {
            Array($0[..<70_001]) + [UInt8](repeating: 0, count: 929_999)
        } by: { path throws in
            let file = try File.open(path, O_RDWR)
            try file.truncate(to: 70_001)
            try file.truncate(to: 1_000_000)
        },
        change("punching a hole into a cold file") {
            patched($0, [UInt8](repeating: 0, count: 100_000), at: 50_000)
        } by: { path throws in
            try File.open(path, O_RDWR).tryPunchingHole(50_000..<150_000)
        },
        change("a write through a shared mapping of a cold file") {
            patched($0, [255], at: 500_000)
        } by: { path throws in
            let file = try File.open(path, O_RDWR)
            let address = mmap(nil, Scenario.size, PROT_READ | PROT_WRITE, MAP_SHARED, file.raw, 0)
            let memory = try #require(address == MAP_FAILED ? nil : address)
            memory.storeBytes(of: 255, toByteOffset: 500_000, as: UInt8.self)
            munmap(memory, Scenario.size)
        },
        change("copying a range into a cold file") {
            patched($0, Array($0[..<100_000]), at: 1_000_000)
        } by: { path throws in
            try shell("dd if=\"$1\" of=\"$1\" bs=1000 count=100 seek=1000 conv=notrunc status=none", [path])
        },
        change("copy_file_range(2) between two cold files", mounting: ["--fill", "read"]) {
            patched($0, Array(Scenario.content(1)[70_000..<170_000]), at: 1_000_001)
        } by: { path throws in
            let script = """
                import os, sys
                source, target = os.open(sys.argv[1][:-1] + "b", os.O_RDONLY), os.open(sys.argv[1], os.O_WRONLY)
                done = 0
                while done < 100_000:
                    done += os.copy_file_range(source, target, 100_000 - done, 70_000 + done, 1_000_001 + done)
                """
            try shell("python3 -c \"$2\" \"$1\"", [path, script])
        },
        change("fallocate(2) behind the end, and zeros in the middle of a cold file", mounting: ["--fill", "read"]) {
            patched($0, [UInt8](repeating: 0, count: 70_000), at: 100_001) + [UInt8](repeating: 0, count: 99_900)
        } by: { path throws in
            try shell(
                "fallocate -z -o 100001 -l 70000 \"$1\"; fallocate -l $(($2 + 99900)) \"$1\"",
                [path, "\(Scenario.size)"])
        },
        change("a write by another name, and an exchange of names with a cold file", mounting: ["--fill", "read"]) {
            patched($0, [1, 2, 3], at: 2_000_000)
        } by: { path throws in
            let script = """
                import ctypes, os, sys
                a = sys.argv[1]; b = a[:-1] + "b"
                os.link(a, a + "2")
                f = os.open(a + "2", os.O_RDWR); os.pwrite(f, b"\\1\\2\\3", 2_000_000); os.close(f)
                for _ in range(2):
                    assert ctypes.CDLL(None).renameat2(-100, a.encode(), -100, b.encode(), 2) == 0
                """
            try shell("python3 -c \"$2\" \"$1\"", [path, script])
        },
        Scenario(name: "a complete file is dirty before it is changed, and clean again when it was not") {
            mirror, _ throws in
            #expect(try mirror.content("b") == Scenario.content(1))
            try mirror.await("b", "complete") { $0.state == "dual" && $0.flags.isEmpty }
            do {
                let file = try File.open(mirror.at("b"), O_RDWR)
                #expect(try mirror.state("b").flags == ["dirty"], "open for writing")
                _ = try file.bytes(0..<10)
            }
            try mirror.await("b", "clean") { $0.flags.isEmpty }
            try File.open(mirror.at("b"), O_WRONLY).put([0], at: 5)
            #expect(try mirror.state("b").flags == ["dirty"], "written")
            sleep(2)
            #expect(try mirror.state("b").flags == ["dirty"], "written and closed")
        },
        Scenario(
            name: "a complete file that is cut off is not released, and dirty at the latest when it is opened again"
        ) {
            mirror, _ throws in
            for (name, isByPath) in [("a", true), ("b", false)] {
                _ = try mirror.content(name)
                try mirror.await(name, "complete") { $0.state == "dual" && $0.flags.isEmpty }
                // Reads are the kernel's own from here on.
                _ = try mirror.content(name)
                if isByPath {
                    #expect(truncate(mirror.at(name), 10) == 0)
                } else {
                    _ = try File.open(mirror.at(name), O_RDONLY | O_TRUNC)
                }
                #expect(try passhsm("release", mirror.at(name)).code == 1)
                #expect(try mirror.content(name).count == (isByPath ? 10 : 0))
                #expect(try mirror.state(name).flags == ["dirty"])
            }
        },
        Scenario(name: "new files are local, whatever is done with them") { mirror, _ throws in
            try shell("echo one >new; cp new second; echo two >>new; mv second third; ln new fourth", in: mirror.mount)
            #expect(try shell("cat fourth third", in: mirror.mount) == "one\ntwo\none\n")
            #expect(try mirror.state("new").state == "local")
        },
    ]
}
