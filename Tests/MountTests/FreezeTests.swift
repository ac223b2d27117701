import Glibc
import HSMSystem
import Testing

extension MountTests {
    /// fsfreeze(8) of the lower file system: what writes waits for the thaw, as without the mount; nothing else does.
    @Suite struct Freeze {
        private func withLowerImage(_ arguments: [String], _ body: (Mirror) throws -> Void) throws {
            try withMirror(apart: true, mounting: nil) { _ in
            } _: { mirror throws in
                try shell(
                    """
                    truncate -s 64M "$1/image"; mkfs.ext4 -q "$1/image"; mount -o loop "$1/image" "$2"
                    """, [mirror.scratch.path, mirror.lower])
                // A frozen file system could not be unmounted by whoever comes next.
                defer { umount2(mirror.lower, Int32(MNT_DETACH)) }
                defer { _ = try? run(["fsfreeze", "-u", mirror.lower]) }
                try Pattern.write(mirror.remote("complete"), size: 5000, seed: 1)
                try Pattern.write(mirror.remote("cold"), size: 3 << 20, seed: 2)
                try mirror.importSource()
                try mirror.start(arguments)
                try body(mirror)
                try mirror.stop()
            }
        }

        @Test(
            "Reading goes on while the lower file system is frozen; writes and fills wait, and succeed after the thaw",
            arguments: [[], ["--no-passthrough"]])
        func freeze(arguments: [String]) throws {
            try withLowerImage(arguments) { mirror throws in
                _ = try File.bytes(mirror.at("complete"))
                // The record of the fill is on disk before the freeze.
                try until("a complete file") { try mirror.state("complete").state == "dual" }
                try shell("echo here >other; touch new", in: mirror.mount)
                try shell("sync -f .; fsfreeze -f .", in: mirror.lower)
                let writers = try (0..<8).map { index in
                    try Child(["bash", "-c", "echo more >>new; echo \(index) >new\(index)"], in: mirror.mount)
                }
                let filling = try Child(["cmp", mirror.remote("cold"), mirror.at("cold")])
                usleep(500_000)
                #expect(writers.allSatisfy { $0.poll() == nil } && filling.poll() == nil, "they wait")
                #expect(try File.bytes(mirror.at("complete")) == Pattern.bytes(0..<5000, seed: 1))
                #expect(try shell("ls; cat other", in: mirror.mount).hasSuffix("here\n"))
                #expect(try mirror.status().pid == mirror.pid, "the daemon answers")
                try shell("fsfreeze -u .", in: mirror.lower)
                for child in writers + [filling] {
                    let output = try child.wait(seconds: 30)
                    #expect(output.code == 0, "\(output)")
                }
                #expect(try shell("grep -c more new; cat new?", in: mirror.mount) == "8\n0\n1\n2\n3\n4\n5\n6\n7\n")
            }
        }
    }
}
