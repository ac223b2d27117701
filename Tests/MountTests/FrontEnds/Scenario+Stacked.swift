import Glibc
import HSMSystem
import TestSupport
import Testing

/// What lies below a mount, and what is stacked on one: a lower directory that is a file system of its own.
extension Scenario {
    /// `image`, a file system with the file `inside`, besides `a`, `b` and `c`.
    @Sendable private static func withImage(_ mirror: Mirror) throws {
        try Scenario(name: "") { _, _ throws in }.prepare(mirror)
        try shell(
            """
            mkdir "$1/content"; cp a "$1/content/inside"; truncate -s 16M image
            mkfs.ext4 -q -d "$1/content" image; rm -r "$1/content"
            """, in: mirror.source, [mirror.scratch.path])
    }

    /// A folder that is unmounted, and gone, when `body` has ended.
    private static func withFolder(_ mirror: Mirror, _ body: (String) throws -> Void) throws {
        let path = mirror.scratch.path + "/stacked"
        mkdir(path, 0o755)
        defer { rmdir(path) }
        defer { umount2(path, Int32(MNT_DETACH)) }
        try body(path)
        try until("its end") { umount2(path, 0) == 0 || errno == EINVAL }
    }

    static let stacked: [Scenario] = [
        Scenario(name: "a fill without space is ENOSPC, and works when there is some", disk: .ext4) {
            mirror, _ throws in
            try shell(
                """
                free=$(($(stat -f -c '%a * %S' .))); fallocate -l $((free - (1 << 20))) filler || true
                dd if=/dev/zero bs=4k 2>/dev/null >>filler2 || true; sync -f .
                """, in: mirror.lower)
            for _ in 0..<2 { #expect(File.readError(mirror.at("a")) == ENOSPC) }
            try mirror.await("a", "the cause") { $0.lastError?.hasPrefix("ENOSPC") == true }
            try shell("rm -f filler filler2; sync -f .", in: mirror.lower)
            #expect(try mirror.content("a") == Scenario.content(0))
            try mirror.await("a", "complete") { $0.state == "dual" && $0.flags.isEmpty }
        },
        Scenario(name: "while the lower file system is frozen, complete files are read, and fills wait", disk: .ext4) {
            mirror, _ throws in
            #expect(try mirror.content("a") == Scenario.content(0))
            try mirror.await("a", "complete") { $0.state == "dual" && $0.flags.isEmpty }
            try shell("sync -f .; fsfreeze -f .", in: mirror.lower)
            defer { _ = try? run(["fsfreeze", "-u", mirror.lower]) }
            let filling = try Child(["cmp", mirror.remote("b"), mirror.at("b")])
            usleep(500_000)
            #expect(filling.poll() == nil, "it waits")
            let reader = try run(["cmp", mirror.remote("a"), mirror.at("a")], seconds: 10)
            #expect(reader.code == 0, "\(reader)")
            #expect(try mirror.status().pid == mirror.pid, "the daemon answers")
            try shell("fsfreeze -u .", in: mirror.lower)
            let output = try filling.wait(seconds: 30)
            #expect(output.code == 0, "\(output)")
        },
        Scenario(name: "a loop device on a cold image has its content", prepare: withImage, disk: .xfs) {
            mirror, _ throws in
            try withFolder(mirror) { folder throws in
                try shell("mount -o loop,ro \"$1\" \"$2\"", [mirror.at("image"), folder])
                #expect(try File.bytes(folder + "/inside") == Scenario.content(0))
            }
            #expect(try mirror.state("image").flags.isEmpty)
        },
        Scenario(name: "an overlay on the mount reads, maps and copies up cold files", disk: .xfs) {
            mirror, frontEnd throws in
            try withFolder(mirror) { folder throws in
                // Of the mount of the other front end an overlay is refused.
                let upper = mirror.scratch.path + "/upper"
                try shell("mkdir -p \"$1/upper\" \"$1/work\"", [upper])
                try shell(
                    "mount -t overlay overlay -o \"lowerdir=$1,upperdir=$2/upper,workdir=$2/work\" \"$3\"",
                    [frontEnd == .fuse ? mirror.mount : mirror.tree, upper, folder])
                #expect(try File.bytes(folder + "/a") == Scenario.content(0))
                let map = "import mmap,sys; f=open(sys.argv[1],'rb'); m=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ)"
                let script = map + "; sys.exit(m[:]!=open(sys.argv[2],'rb').read())"
                let mapped = try run(["python3", "-c", script, folder + "/b", mirror.remote("b")])
                #expect(mapped.code == 0, "\(mapped)")
                try File.open(folder + "/c", O_WRONLY).put([7], at: 100_000)
                var expected = Scenario.content(2)
                expected[100_000] = 7
                #expect(try File.bytes(folder + "/c") == expected)
            }
            #expect(try mirror.content("c") == Scenario.content(2))
            // Opened by who writes to its copy, it counts as changed for a moment.
            try mirror.await("c", "clean") { $0.flags.isEmpty }
        },
    ]
}
