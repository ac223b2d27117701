import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// `passhsm release`, `recall`, `pin`: content goes and comes, and no reader ever notices.
    @Suite struct Release {
        private static let size = 3 << 20

        private func withFiles(
            apart: Bool = false, _ arguments: [String] = [], _ body: (Mirror) throws -> Void
        ) throws {
            try withMirror(apart: apart, mounting: arguments) { mirror throws in
                for (index, name) in ["a", "b", "dir/c", "dir/deep/d"].enumerated() {
                    try shell("mkdir -p dir/deep", in: mirror.source)
                    try Pattern.write(mirror.remote(name), size: Self.size + index, seed: index)
                }
                try shell("find . -type f | xargs touch -d 2020-01-01", in: mirror.source)
            } _: { mirror throws in
                try body(mirror)
            }
        }

        private func refusal(_ mirror: Mirror, _ name: String, lower: Bool = false) throws -> String {
            let output = try passhsm("release", (lower ? mirror.lower : mirror.mount) + "/" + name)
            #expect(output.code == 1, "\(output)")
            return output.err
        }

        private func done(_ command: String, _ arguments: String...) throws {
            let output = try run([Machine.program, command] + arguments)
            #expect(output.code == 0, "\(output)")
        }

        private func blocks(_ path: String) throws -> Int { Int(try File.stat(path).st_blocks) }

        @Test("A released file has no blocks, shows the same attributes, and reads the same", arguments: [true, false])
        func roundTrip(passthrough: Bool) throws {
            try withFiles(apart: true, passthrough ? [] : ["--no-passthrough"]) { mirror in
                for round in 0..<3 {
                    #expect(try File.bytes(mirror.at("a")) == Pattern.bytes(0..<Self.size))
                    try until("completion") { try mirror.state("a", inLower: true).state == "dual" }
                    let before = try File.stat(mirror.at("a"))
                    try done("release", mirror.at("a"))
                    let state = try mirror.state("a", inLower: true)
                    #expect(state.state == "offline" && state.presentBytes == 0, "round \(round)")
                    #expect(try blocks(mirror.tree + "/a") <= 16)
                    let after = try File.stat(mirror.at("a"))
                    #expect(after.st_size == before.st_size && after.st_mtim.tv_sec == before.st_mtim.tv_sec)
                    #expect(after.st_ctim.tv_nsec == before.st_ctim.tv_nsec, "tar would find it changed")
                    #expect(after.st_blocks == (Self.size + 511) / 512)
                    let copy = mirror.scratch.path + "/copy"
                    try shell("cp --sparse=always \"$1\" \"$2\"", [mirror.at("a"), copy])
                    #expect(try File.sameContent(copy, mirror.remote("a")))
                }
            }
        }

        @Test("A file that is released while it is being opened is filled again", arguments: [true, false])
        func openMeanwhile(passthrough: Bool) throws {
            try withFiles(apart: true, passthrough ? [] : ["--no-passthrough"]) { mirror in
                #expect(try File.sameContent(mirror.at("a"), mirror.remote("a")))
                try mirror.stop()
                #expect(try mirror.state("a", inLower: true).state == "dual")
                // Between the look whether it is complete and the open of it as such.
                let arguments = passthrough ? [] : ["--no-passthrough"]
                try mirror.start(arguments, failpoints: "open.complete:pause")
                // It takes a second, in which the release may come too late on a busy machine.
                try until("a release between the two") {
                    let reader = try Child(["cmp", mirror.at("a"), mirror.remote("a")])
                    try until("the open") { isOpening(reader.pid, mirror.at("a")) }
                    let isReleased = try passhsm("release", mirror.at("a")).code == 0
                    if isReleased { #expect(try mirror.state("a").state == "offline") }
                    #expect(try reader.wait(seconds: 30).code == 0)
                    return isReleased
                }
            }
        }

        @Test("An open, mapped, dirty, pinned or local file is not released, and the reason is told")
        func refusals() throws {
            try withFiles { mirror in
                _ = try File.bytes(mirror.at("a"))
                let reader = try File.open(mirror.at("a"))
                #expect(try refusal(mirror, "a").contains("open"))
                let address = mmap(nil, Self.size, PROT_READ, MAP_PRIVATE, reader.raw, 0)
                let memory = try #require(address == MAP_FAILED ? nil : address)
                try done("pin", mirror.at("b"))
                #expect(try refusal(mirror, "b").contains("pinned"))
                #expect(try mirror.state("b").flags == ["pinned"])
                try done("unpin", mirror.at("b"))
                try done("release", mirror.at("b"))
                try File.open(mirror.at("dir/c"), O_WRONLY).put([1, 2, 3], at: 100_000)
                #expect(try refusal(mirror, "dir/c").contains("local changes"))
                try File.put("new", mirror.at("new"))
                #expect(try refusal(mirror, "new").contains("local"))
                #expect(try refusal(mirror, "none").contains("No such file"))
                #expect(try refusal(mirror, "dir").contains("not a regular file"))
                munmap(memory, Self.size)
            }
        }

        @Test("A mapping whose descriptor is closed keeps its file from being released", arguments: ["auto", "read"])
        func mapped(fill: String) throws {
            try withFiles(["--fill", fill]) { mirror in
                // Complete before, so that with passthrough the mapping is the lower file's.
                _ = try File.bytes(mirror.at("a"))
                try until("completion") { try mirror.status().counter("granulesFetched") == 48 }
                try mirror.settle()
                let descriptor = open(mirror.at("a"), O_RDONLY)
                let address = mmap(nil, Self.size, PROT_READ, MAP_SHARED, descriptor, 0)
                close(descriptor)
                let memory = UnsafeRawBufferPointer(
                    start: try #require(address == MAP_FAILED ? nil : address), count: Self.size)
                #expect(try refusal(mirror, "a").contains("open"))
                #expect(memory.elementsEqual(Pattern.bytes(0..<Self.size)))
                munmap(UnsafeMutableRawPointer(mutating: memory.baseAddress), Self.size)
                try done("release", mirror.at("a"))
                #expect(try File.bytes(mirror.at("a")) == Pattern.bytes(0..<Self.size))
            }
        }

        @Test("A file that is open in the lower directory is not released, with and without a daemon")
        func openBehind() throws {
            try withFiles(apart: true) { mirror in
                _ = try File.bytes(mirror.at("a"))
                let behind = try File.open(mirror.tree + "/a")
                #expect(try refusal(mirror, "a").contains("open"))
                #expect(try refusal(mirror, "a", lower: true).contains("open"))
                try mirror.stop()
                #expect(try refusal(mirror, "a", lower: true).contains("open"))
                #expect(try behind.bytes(0..<Self.size) == Pattern.bytes(0..<Self.size))
            }
        }

        @Test("Pages that are on their way through a pipe keep their bytes when the file is released")
        func spliced() throws {
            try withFiles { mirror in
                _ = try File.bytes(mirror.at("dir/deep/d"))
                try until("completion") { try mirror.status().counter("granulesFetched") == 49 }
                let script = """
                    import os, subprocess, sys
                    program, path, remote = sys.argv[1:]
                    reader, writer = os.pipe()
                    file, offset = os.open(path, os.O_RDONLY), os.path.getsize(path) - 5000
                    assert os.splice(file, writer, 5000, offset_src=offset) == 5000
                    os.close(file)
                    subprocess.run([program, "release", path], check=True)
                    content = os.read(reader, 5000)
                    assert content == open(remote, "rb").read()[offset:], content[:100]
                    """
                let output = try run([
                    "python3", "-c", script, Machine.program, mirror.at("dir/deep/d"), mirror.remote("dir/deep/d"),
                ])
                #expect(output.code == 0, "\(output)")
            }
        }

        @Test("What the remote no longer has in the same version is not given up, and stays readable")
        func changedRemote() throws {
            try withFiles { mirror in
                for name in ["a", "b", "dir/c"] { _ = try File.bytes(mirror.at(name)) }
                try shell("echo more >> a; rm b", in: mirror.source)
                #expect(try refusal(mirror, "a").contains("version"))
                #expect(try refusal(mirror, "b").contains("No such file"))
                try mirror.fail(true)
                #expect(try refusal(mirror, "dir/c").contains("simulated remote fails"))
                try mirror.fail(false)
                #expect(try File.bytes(mirror.at("a")) == Pattern.bytes(0..<Self.size))
                #expect(try File.bytes(mirror.at("b")) == Pattern.bytes(0..<Self.size + 1, seed: 1))
            }
        }

        @Test("A file that is present in part is released too, and one that is being filled is not")
        func partial() throws {
            try withFiles(["--fill", "read"]) { mirror in
                _ = try File.bytes(mirror.at("a"), 1_000_000..<1_100_000)
                try until("the handle's end") { try mirror.status().openHandles == 0 }
                try done("release", mirror.at("a"))
                #expect(try mirror.state("a").state == "offline")
                try mirror.hold()
                let reader = try Child(["cmp", mirror.at("a"), mirror.remote("a")])
                try until("a waiting reader") { try mirror.status().waiting > 0 }
                #expect(try refusal(mirror, "a").contains("open"))
                mirror.letGo()
                #expect(try reader.wait(seconds: 20).code == 0)
                #expect(try File.bytes(mirror.at("a")) == Pattern.bytes(0..<Self.size))
            }
        }

        @Test("Below a directory everything is released that can be; without a daemon too")
        func recursive() throws {
            try withFiles { mirror in
                try done("recall", "-r", mirror.mount)
                for name in ["a", "b", "dir/c", "dir/deep/d"] { #expect(try mirror.state(name).state == "dual") }
                try File.open(mirror.at("b"), O_WRONLY).put([7], at: 0)
                var output = try passhsm("release", "-r", mirror.mount)
                #expect(output.code == 1 && output.err.contains("local changes") && output.out.contains("3 files"))
                try done("stage", mirror.at("dir/c"), mirror.at("a"))
                try mirror.stop()
                #expect(try mirror.state("a", inLower: true).state == "dual")
                output = try passhsm("release", "--recursive", mirror.lower)
                #expect(output.code == 1 && output.err.contains("local changes"))
                for name in ["a", "dir/c", "dir/deep/d"] {
                    #expect(try mirror.state(name, inLower: true).state == "offline")
                }
                output = try passhsm("recall", mirror.lower + "/a")
                #expect(output.code == 1 && output.err.contains("mount"))
                try mirror.start()
                #expect(try File.bytes(mirror.at("dir/deep/d")) == Pattern.bytes(0..<Self.size + 3, seed: 3))
            }
        }

        @Test("A recall that fails tells of each file; one that is broken off stops")
        func failedRecall() throws {
            try withFiles(["--deadline", "300"]) { mirror in
                try mirror.fail(true)
                let output = try passhsm("recall", "-r", mirror.mount)
                #expect(output.code == 1)
                #expect(output.err.split(separator: "\n").count { $0.contains("simulated remote fails") } == 4)
                try mirror.fail(false)
                try mirror.hold()
                let recall = try Child([Machine.program, "recall", "-r", mirror.mount])
                try until("waiting fills") { try mirror.status().waiting >= 4 }
                recall.kill(SIGINT)
                try until("nobody to wait") { try mirror.status().waiting == 0 }
                mirror.letGo()
                try done("recall", "-r", mirror.mount)
            }
        }

        @Test("A recall that runs when its mount ends is told so, and the mount ends", arguments: FrontEnd.allCases)
        func recallAtUnmount(frontEnd: FrontEnd) throws {
            try withFiles(frontEnd.arguments + ["--deadline", "300"]) { mirror in
                try mirror.hold()
                let recall = try Child([Machine.program, "recall", "-r", mirror.mount])
                try until("waiting fills") { try mirror.status().waiting >= 4 }
                try done("unmount", mirror.mount)
                let output = try recall.wait(seconds: 20)
                #expect(output.code == 1 && output.err.contains("the mount is ending"), "\(output)")
                mirror.letGo()
                try mirror.start()
                try done("recall", "-r", mirror.mount)
            }
        }

        @Test("Readers and writers never see anything else while their files are released again and again")
        func race() throws {
            try withFiles(apart: true) { mirror in
                let readers = try comparingReaders(mirror, mapped: "a", other: "dir/c", rounds: 25)
                var released = 0
                while readers.contains(where: { $0.poll() == nil }) {
                    let output = try passhsm("release", mirror.at("a"), mirror.at("dir/c"))
                    if output.out.hasPrefix("0 ") == false { released += 1 }
                }
                for reader in readers { #expect(try reader.wait(seconds: 1).code == 0) }
                #expect(released > 0, "no release came through: nothing was tested")
            }
        }
    }
}
