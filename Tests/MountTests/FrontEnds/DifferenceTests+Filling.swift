import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

/// Filling when a file is opened, and by ranges: what the kernel tells of, and what it does not.
extension MountTests.FrontEnds.Differences {
    @Test("With --fill read, who looks for holes takes what is not there for zeros, and the mount warns of it")
    func danger() throws {
        try withFiles(["--fill", "read"]) { mirror in
            #expect(mirror.log.contains("WARNING: with --fill read"))
            let copy = mirror.scratch.path + "/copy"
            try shell("cp --sparse=always \"$1\" \"$2\"", [mirror.at("a"), copy])
            #expect(try File.bytes(copy) == [UInt8](repeating: 0, count: Scenario.size))
            #expect(try mirror.status().counter("fetches") == 0)
            // Who reads it gets it.
            #expect(try mirror.content("a") == Scenario.content(0))
        }
    }

    @Test(
        "With --fill read, a loop device on a cold file, and a mapping through an overlay, show zeros: no event tells")
    func untold() throws {
        try withDisk(.xfs, ["--frontend", "fanotify", "--fill", "read"]) { mirror in
            let zeros = [UInt8](repeating: 0, count: 4096)
            let device = try shell("losetup -r -f --show \"$1\"", [mirror.at("a")])
                .trimmingCharacters(in: .whitespacesAndNewlines)
            let read = try File.bytes(device, 0..<4096)
            try shell("losetup -d \"$1\"", [device])
            #expect(read == zeros)
            let folder = mirror.scratch.path + "/overlay"
            mkdir(folder, 0o755)
            try shell("mount -t overlay overlay -o \"lowerdir=$1:$2\" \"$3\"", [mirror.tree, mirror.source, folder])
            defer { umount2(folder, Int32(MNT_DETACH)) }
            do {
                let file = try File.open(folder + "/b")
                let address = mmap(nil, 4096, PROT_READ, MAP_PRIVATE, file.raw, 0)
                let memory = try #require(address == MAP_FAILED ? nil : address)
                #expect(UnsafeRawBufferPointer(start: memory, count: 4096).elementsEqual(zeros))
                munmap(memory, 4096)
            }
            #expect(try mirror.status().counter("fetches") == 0)
            // What reads is told, through the overlay too.
            #expect(try File.bytes(folder + "/b") == Scenario.content(1))
        }
    }

    @Test(
        "cp --reflink of a cold file shares its content, and no holes", arguments: [Disk.Kind.xfs, .btrfs],
        ["open", "read"])
    func reflink(kind: Disk.Kind, fill: String) throws {
        try withDisk(kind, ["--frontend", "fanotify", "--fill", fill]) { mirror in
            try shell("cp --reflink=always a copy; cp --reflink=auto b copy2", in: mirror.mount)
            #expect(try mirror.content("copy") == Scenario.content(0))
            #expect(try mirror.content("copy2") == Scenario.content(1))
            #expect(try mirror.state("copy").state == "local")
            try mirror.await("a", "clean") { $0.state == "dual" && $0.flags.isEmpty }
        }
    }

    @Test("An open of a cold file is answered once all of it is there, one of a complete one without the engine")
    func opening() throws {
        try withFiles([]) { mirror in
            let file = try File.open(mirror.at("a"))
            let counters = try mirror.status()
            #expect(counters.counter("bytesFetched") == Scenario.size)
            #expect(try file.bytes(0..<Scenario.size) == Scenario.content(0))
            #expect(try mirror.status().counter("fetches") == counters.counter("fetches"))
        }
    }
    @Test("A file that is cut off by its path while it is being released is not released")
    func truncatedMeanwhile() throws {
        try withMirror(apart: true, mounting: nil) { mirror throws in
            try Scenario(name: "") { _, _ throws in }.prepare(mirror)
        } _: { mirror throws in
            try mirror.start(FrontEnd.fanotify.arguments, failpoints: "release.punch:pause")
            _ = try mirror.content("a")
            try mirror.await("a", "complete") { $0.state == "dual" && $0.flags.isEmpty }
            let inode = try File.stat(mirror.at("a")).st_ino
            let release = try Child([Machine.program, "release", mirror.at("a")])
            try until("the release under way") {
                try String(contentsOfFile: "/proc/locks", encoding: .utf8).split(separator: "\n").contains {
                    $0.contains(" LEASE ") && $0.contains(":\(inode) ")
                }
            }
            // Behind the mount no event is raised, as for one that was let through a moment ago.
            let cut = try Child(["python3", "-c", "import os, sys; os.truncate(sys.argv[1], 10)", mirror.tree + "/a"])
            #expect(try release.wait(seconds: 30).code == 1)
            #expect(try cut.wait(seconds: 30).code == 0)
            #expect(try mirror.content("a") == Array(Scenario.content(0)[..<10]))
            #expect(try mirror.state("a").flags == ["dirty"])
        }
    }
}
