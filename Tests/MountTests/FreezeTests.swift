import Glibc
import HSMSystem
import TestSupport
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
                try Pattern.write(mirror.remote("other"), size: 3 << 20, seed: 3)
                try Pattern.write(mirror.remote("removed"), size: 5000, seed: 4)
                try shell(
                    """
                    truncate -s 8M image; mkdir "$1/content"; cp cold "$1/content"; mkfs.ext4 -q -d "$1/content" image
                    """, in: mirror.source, [mirror.scratch.path])
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
                try shell("echo here >own; touch new", in: mirror.mount)
                try shell("sync -f .; fsfreeze -f .", in: mirror.lower)
                let writers = try (0..<8).map { index in
                    try Child(["bash", "-c", "echo more >>new; echo \(index) >new\(index)"], in: mirror.mount)
                }
                let filling = try Child(["cmp", mirror.remote("cold"), mirror.at("cold")])
                usleep(500_000)
                #expect(writers.allSatisfy { $0.poll() == nil } && filling.poll() == nil, "they wait")
                #expect(try File.bytes(mirror.at("complete")) == Pattern.bytes(0..<5000, seed: 1))
                #expect(try shell("ls; cat own", in: mirror.mount).hasSuffix("here\n"))
                #expect(try mirror.status().pid == mirror.pid, "the daemon answers")
                try shell("fsfreeze -u .", in: mirror.lower)
                for child in writers + [filling] {
                    let output = try child.wait(seconds: 30)
                    #expect(output.code == 0, "\(output)")
                }
                #expect(try shell("grep -c more new; cat new?", in: mirror.mount) == "8\n0\n1\n2\n3\n4\n5\n6\n7\n")
            }
        }

        /// What sendfile(2) reads from: the mount, or something stacked on it.
        enum Source: String, CaseIterable {
            case mount, loop, overlay
        }

        // With fanotify's pre-content events the three would wait for each other: sendfile for the fill with the freeze
        // protection in its hands, the freeze for sendfile, the fill for the freeze.
        @Test(
            "sendfile(2) from a cold file into the lower file system, a freeze of it, and a fill that writes to it do not wait for each other",
            arguments: Source.allCases)
        func threeProcesses(source: Source) throws {
            try withLowerImage([]) { mirror throws in
                let stacked = mirror.scratch.path + "/stacked"
                mkdir(stacked, 0o755)
                switch source {
                case .mount: break
                case .loop: try shell("mount -o loop,ro \"$1\" \"$2\"", [mirror.at("image"), stacked])
                case .overlay:
                    let empty = mirror.scratch.path + "/empty"
                    mkdir(empty, 0o755)
                    try shell(
                        "mount -t overlay overlay -o \"lowerdir=$1:$2\" \"$3\"", [mirror.mount, empty, stacked])
                }
                defer { if source != .mount { umount2(stacked, Int32(MNT_DETACH)) } }
                let cold = (source == .mount ? mirror.mount : stacked) + "/cold"
                try mirror.hold()
                let sending = try Child([
                    "python3", "-c",
                    """
                    import os, sys
                    source, target = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
                    while os.sendfile(target, source, None, 1 << 20): pass
                    """, cold, mirror.tree + "/sent",
                ])
                let other = try Child(["cmp", mirror.remote("other"), mirror.at("other")])
                try until("both fills") { try mirror.status().waiting >= 2 }
                let freezing = try Child(["fsfreeze", "-f", mirror.lower])
                let removing = try Child(["rm", mirror.at("removed")])
                usleep(300_000)
                mirror.letGo()
                let frozen = try freezing.wait(seconds: 30)
                #expect(frozen.code == 0, "\(frozen)")
                usleep(300_000)
                try shell("fsfreeze -u .", in: mirror.lower)
                for child in [sending, other, removing] {
                    let output = try child.wait(seconds: 30)
                    #expect(output.code == 0, "\(output)")
                }
                try shell("cmp \"$1\" \"$2\"", [mirror.remote("cold"), mirror.tree + "/sent"])
                if source != .mount { try until("its end") { umount2(stacked, 0) == 0 } }
            }
        }
    }
}
