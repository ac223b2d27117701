import CLinux
import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// File handles of the mount (name_to_handle_at(2)), and so what NFS servers and overlays keep: they hold the node id.
    @Suite struct NodeIDs {
        private typealias Handle = HSMSystem.FileHandle

        /// Gives `body` a mirror whose lower directory is below the top of a new file system of its own.
        private func onLower(
            _ kind: String, isVast: Bool = false, _ body: (Mirror, _ disk: String) throws -> Void
        ) throws {
            try withScratch { scratch throws in
                let path = scratch.path + "/disk"
                var disk: Disk?
                defer {
                    umount2(path, Int32(MNT_DETACH))
                    disk?.remove()
                }
                switch kind {
                case "tmpfs": try shell("mkdir \"$1\" && mount -t tmpfs none \"$1\"", [path])
                case "overlay":
                    try shell(
                        """
                        mkdir -p "$1" "$2/below" "$2/upper" "$2/work"
                        mount -t overlay none -o lowerdir="$2/below",upperdir="$2/upper",workdir="$2/work" "$1"
                        """, [path, scratch.path])
                default: disk = try Disk(#require(Disk.Kind(rawValue: kind)), at: path, isVast: isVast)
                }
                let mirror = try Mirror(scratch, apart: true, lower: path + "/lower")
                try mirror.live { mirror throws in
                    try shell(
                        """
                        mkdir -p dir/sub/deep; head -c 300000 /dev/urandom >dir/file; echo deep >dir/sub/deep/file
                        ln dir/file hard; ln -s dir/file link; mkfifo fifo
                        """, in: mirror.source)
                    // ext4 spreads the directories in it too.
                    if isVast && kind == "ext4" {
                        try shell(
                            "mkdir -m 700 .passhsm; mkdir .passhsm/tree; chattr +T .passhsm/tree", in: mirror.lower)
                    }
                } _: { mirror throws in
                    try body(mirror, path)
                }
            }
        }

        private static func handle(_ path: String) throws -> Handle { try Handle(of: path, at: AT_FDCWD) }

        /// As the kernel makes a handle of a node id (KERNEL: fs/fuse/inode.c).
        private static func handle(_ node: UInt64, _ generation: UInt32) throws -> Handle {
            let words = [UInt32(node >> 32), UInt32(truncatingIfNeeded: node), generation]
            return try #require(words.withUnsafeBytes { Handle(type: 0x81, bytes: $0) })
        }

        /// The errno of opening `handle` in the mount; 0 when it opens.
        private static func error(_ handle: Handle, _ mirror: Mirror) throws -> Int32 {
            let top = try File.open(mirror.mount, O_RDONLY | O_DIRECTORY)
            do throws(Errno) {
                _ = try handle.open(on: top, O_RDONLY | O_NONBLOCK)
                return 0
            } catch { return error.rawValue }
        }

        /// The kernel forgets what is not open.
        private static func evict() throws { try shell("echo 2 >/proc/sys/vm/drop_caches") }

        /// Handles of everything lead to it.
        private func check(_ handles: [String: Handle], _ mirror: Mirror) throws {
            let top = try File.open(mirror.mount, O_RDONLY | O_DIRECTORY)
            for (name, handle) in handles.sorted(by: { $0.key < $1.key }) {
                let opened = try handle.open(on: top, PASSHSM_O_PATH)
                #expect(try opened.stat().st_ino == File.stat(mirror.at(name)).st_ino, "\(name)")
            }
            let file = try #require(handles["dir/file"]).open(on: top, O_RDONLY)
            #expect(try file.bytes(0..<1 << 20) == File.bytes(mirror.remote("dir/file")))
            let deep = try #require(handles["dir/sub/deep"]).open(on: top, O_RDONLY | O_DIRECTORY)
            #expect(try DirectoryReader.names(in: deep) == [Array("file\0".utf8)])
            // By LOOKUP of "..".
            let path = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\(deep.raw)")
            #expect(path == mirror.at("dir/sub/deep"))
        }

        @Test(
            "A file handle opens its file: also of one that the kernel has forgotten, and after a restart or kill -9",
            arguments: ["ext4", "xfs", "btrfs", "tmpfs"])
        func lasting(lower: String) throws {
            try onLower(lower) { mirror, _ throws in
                let names = ["dir", "dir/file", "dir/sub/deep", "dir/sub/deep/file", "link", "fifo", ""]
                let handles = try Dictionary(uniqueKeysWithValues: names.map { ($0, try Self.handle(mirror.at($0))) })
                #expect(try Self.handle(mirror.at("hard")) == handles["dir/file"])
                try check(handles, mirror)
                try Self.evict()
                try check(handles, mirror)
                try mirror.stop()
                try mirror.start()
                try check(handles, mirror)
                try mirror.killDaemon()
                try mirror.start()
                try check(handles, mirror)
                #expect(try Self.handle(mirror.at("dir/file")) == handles["dir/file"])
            }
        }

        @Test("So it does where inode numbers have more than 31 bits", arguments: ["ext4", "xfs"])
        func vast(lower: String) throws {
            try onLower(lower, isVast: true) { mirror, _ throws in
                // In one of them the files have such numbers.
                try shell("for i in $(seq 24); do mkdir $i; echo $i >$i/file; done", in: mirror.mount)
                let name = try #require(
                    (1...24).map { "\($0)/file" }.first { try File.stat(mirror.at($0)).st_ino >= 1 << 31 })
                let handle = try Self.handle(mirror.at(name))
                let content = try File.bytes(mirror.at(name))
                func bytes() throws -> [UInt8] {
                    let top = try File.open(mirror.mount, O_RDONLY | O_DIRECTORY)
                    return try handle.open(on: top, O_RDONLY).bytes(0..<100)
                }
                try Self.evict()
                #expect(try bytes() == content)
                try mirror.stop()
                try mirror.start()
                #expect(try bytes() == content)
                #expect(try Self.handle(mirror.at(name)) == handle)
                try Self.evict()
                // Another file gets the number.
                let directory = mirror.tree + "/" + name.prefix { $0 != "/" }
                let number = try File.stat(mirror.tree + "/" + name).st_ino
                unlink(mirror.tree + "/" + name)
                // xfs frees it later.
                try until("another file with the number") {
                    try Self.evict()
                    return try shell("for i in $(seq 8); do mktemp -p .; done; ls -i", in: directory).contains(
                        "\(number) ")
                }
                #expect(try Self.error(handle, mirror) == ESTALE)
                #expect(try mirror.status().pid == mirror.pid)
            }
        }

        @Test(
            "A handle of a file that is gone is stale, also when another file has its inode number",
            arguments: ["ext4", "xfs", "btrfs", "tmpfs", "overlay"])
        func gone(lower: String) throws {
            try onLower(lower) { mirror, _ throws in
                // By the mount and behind it, while the kernel knows the file and when not.
                // By the mount and behind it. Above overlayfs the daemon holds what the kernel knows.
                for path in lower == "overlay" ? [mirror.mount] : [mirror.mount, mirror.tree] {
                    try File.put("old", mirror.at("old"))
                    let old = try Self.handle(mirror.at("old"))
                    #expect(try Self.error(old, mirror) == 0)
                    unlink(path + "/old")
                    // The kernel may still be closing it.
                    try until("it to be gone") {
                        try Self.evict()
                        return try Self.error(old, mirror) != 0
                    }
                    #expect(try Self.error(old, mirror) == ESTALE)
                    for index in 0..<16 { try File.put("new", path + "/new\(index)") }
                    #expect(try Self.error(old, mirror) == ESTALE)
                    try shell("rm new*", in: path)
                }
            }
        }

        @Test(
            "Numbers that were never given out are stale: the daemon lives, and nothing outside the mount is opened",
            arguments: ["ext4", "xfs", "btrfs", "tmpfs", "overlay"])
        func forged(lower: String) throws {
            try onLower(lower) { mirror, disk throws in
                try shell("mkdir outside outside/sub", in: disk)
                try File.put("beside the tree", mirror.lower + "/stray")
                let edges: [UInt64] = [
                    0, 2, 3, 0x8000_0000, 0x1_0000_0000, 1 << 62, 1 << 63, 3 << 62, 7 << 61, .max - 1, .max,
                ]
                var forged: [(UInt64, UInt32)] = edges.map { ($0, 0) }
                // Addresses of the daemon.
                let maps = try String(contentsOfFile: "/proc/\(mirror.pid)/maps", encoding: .utf8).split(
                    separator: "\n")
                forged += maps.compactMap { UInt64($0.prefix { $0 != "-" }, radix: 16) }.map { ($0 + 64, 1) }
                var random = SeededRandom(seed: 1)
                forged += (0..<500).map { _ in (random.next(), UInt32(truncatingIfNeeded: random.next())) }
                let top = try File.open(disk, O_RDONLY | O_DIRECTORY)
                if let numbering = NodeNumbering(of: top, mount: top) {
                    // Of the store's folder the tree alone is shown, and the mount knows its top by another number.
                    let store = mirror.lower + "/.passhsm"
                    let hidden = ["", "config", "lock", "partial", "objects", "objects/1", "tmp", "tree"].map {
                        "\(store)/\($0)"
                    }
                    let beside = ["", "/stray", "/NOT-MOUNTED.txt"].map { mirror.lower + $0 }
                    for path in hidden + beside + [disk, disk + "/outside", disk + "/outside/sub"] {
                        let handle = try Self.handle(path)
                        let number = try #require(numbering.number(of: handle))
                        forged.append((number, numbering.generation(of: handle)))
                    }
                }
                let file = try Self.handle(mirror.at("dir/file"))
                let (high, low) = (file.load(at: 0, as: UInt32.self), file.load(at: 4, as: UInt32.self))
                let (node, generation) = (UInt64(high) << 32 | UInt64(low), file.load(at: 8, as: UInt32.self))
                // On btrfs the next numbers are those of the other files, with the same generation.
                for bit in (lower == "btrfs" ? 8 : 0)..<64 { forged.append((node ^ UInt64(1) << bit, generation)) }
                forged.append((node, generation ^ 1))
                try Self.evict()
                for (node, generation) in forged where node != 1 {
                    let error = try Self.error(Self.handle(node, generation), mirror)
                    #expect(error == ESTALE, "\(String(node, radix: 16)), \(generation)")
                }
                #expect(try Self.error(Self.handle(1, 0), mirror) == 0)
                #expect(try mirror.status().pid == mirror.pid)
                #expect(try File.bytes(mirror.at("dir/file")) == File.bytes(mirror.remote("dir/file")))
            }
        }
    }
}
