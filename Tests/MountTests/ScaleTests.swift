import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// 7, 9 and 10: many names, many files, many mounts.
    @Suite struct Scale {
        private func make(_ count: Int, in path: String) throws {
            for index in 0..<count {
                let file = open("\(path)/entry-\(index)", O_WRONLY | O_CREAT, 0o644)
                guard file >= 0 else { throw Failure("open: \(String(cString: strerror(errno)))") }
                close(file)
            }
        }

        @Test("A directory of 100,000 entries is listed whole and once, and each entry is found")
        func manyEntries() throws {
            let count = Machine.isLong ? 1_000_000 : 100_000
            try withMirror(limit: 1200) { mirror throws in
                mkdir(mirror.remote("many"), 0o755)
                try make(count, in: mirror.remote("many"))
            } _: { mirror throws in
                let names = "ls -U many | sort | sha256sum"
                #expect(try shell("ls -U many | wc -l", in: mirror.mount, seconds: 600) == "\(count)\n")
                #expect(
                    try shell(names, in: mirror.mount, seconds: 600) == shell(names, in: mirror.source, seconds: 600))
                for index in stride(from: 0, to: count, by: 997) {
                    #expect(try File.stat(mirror.at("many/entry-\(index)")).st_size == 0)
                }
                // Changes while the directory is read lose and double nothing of the rest.
                let left = try shell(
                    "find many -name 'entry-*7' -delete; ls -U many | wc -l", in: mirror.mount, seconds: 900)
                #expect(left == "\(count / 10 * 9)\n")
                #expect(try shell("ls -U many | grep -c '7$' || true", in: mirror.mount, seconds: 600) == "0\n")
            }
        }

        @Test("A tree of many files is walked with fewer than 4,000 descriptors in the daemon")
        func descriptors() throws {
            let count = Machine.isLong ? 200_000 : 50_000
            try withMirror(limit: 1200) { mirror throws in
                for folder in 0..<count / 500 {
                    mkdir(mirror.remote("d\(folder)"), 0o755)
                    try make(500, in: mirror.remote("d\(folder)"))
                }
            } _: { mirror throws in
                let walk = try Child(["find", mirror.mount, "-type", "f", "-size", "0", "-printf", "%s"])
                var most = 0
                while walk.poll() == nil {
                    most = max(
                        most, try FileManager.default.contentsOfDirectory(atPath: "/proc/\(mirror.pid)/fd").count)
                    usleep(5000)
                }
                let output = try walk.wait(seconds: 1)
                #expect(output.code == 0 && output.out.utf8.count == count)
                #expect(most > 0 && most < 4000)
                let status = try mirror.status()
                #expect(status.openDescriptors < 4000)
                #expect(status.knownInodes <= count + count / 500 + 10)
            }
        }

        @Test("No descriptor, inode, backing id or process is left after many mounts and 100,000 opens")
        func leaks() throws {
            let (mounts, opens) = (100, 1000)
            try withMirror(mounting: nil, limit: 600) { mirror throws in
                for index in 0..<50 { try Pattern.write(mirror.remote("f\(index)"), size: 2000, seed: index) }
            } _: { mirror throws in
                let own = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count
                for round in 0..<mounts {
                    try mirror.start()
                    for index in 0..<50 { _ = try File.bytes(mirror.at("f\(index)"), 0..<10) }
                    try until("the releases") { try mirror.status().openHandles == 0 }
                    let before = try mirror.status()
                    for index in 0..<opens {
                        let file = Glibc.open(mirror.at("f\(index % 50)"), index % 10 == 0 ? O_RDWR : O_RDONLY)
                        try #require(file >= 0)
                        close(file)
                    }
                    try until("the releases") { try mirror.status().openHandles == 0 }
                    let after = try mirror.status()
                    #expect(after.openDescriptors <= before.openDescriptors + 8, "round \(round)")
                    #expect(after.backingIDs <= 50 && after.knownInodes <= before.knownInodes)
                    try mirror.stop()
                }
                #expect(try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count <= own + 2)
                #expect(try shell("grep -rlsF -- \"$1\" /run/passhsm* || true", [mirror.lower]) == "", "the registry")
            }
        }

        @Test("Inodes that the kernel forgets are forgotten")
        func forget() throws {
            try withMirror { mirror throws in
                try make(5000, in: mirror.source)
            } _: { mirror throws in
                try shell("ls -l \"$1\" >/dev/null", [mirror.mount])
                #expect(try mirror.status().knownInodes >= 5000)
                try until("the inodes to be forgotten") {
                    try shell("echo 2 >/proc/sys/vm/drop_caches")
                    return try mirror.status().knownInodes < 100
                }
            }
        }
    }
}
