import Foundation
import Glibc
import TestSupport
import Testing

/// A source directory that is unmounted and mounted again, behind a mount and an import.
extension MountTests {
    @Suite struct SourceAwayTests {
        /// A mirror whose source is a mount, and how to take that away.
        private func withMounted(
            _ arguments: [String]?, _ body: (Mirror, _ mount: (Bool) throws -> Void) throws -> Void
        ) throws {
            try withScratch { scratch in
                let mirror = try Mirror(scratch)
                let real = scratch.path + "/real"
                mkdir(real, 0o755)
                for (seed, name) in ["a", "b", "c"].enumerated() {
                    try Pattern.write(real + "/" + name, size: 300_000, seed: seed)
                }
                defer {
                    umount2(mirror.source, Int32(MNT_DETACH))
                    _ = mirror.cleanUp()
                }
                func mount(_ on: Bool) throws {
                    if on {
                        try shell("mount --bind \"$1\" \"$2\"", [real, mirror.source])
                    } else {
                        // No force: nothing may keep it busy, but for the end of a read whose reader was answered already.
                        try until("the source to be free", seconds: 5) { umount2(mirror.source, 0) == 0 }
                    }
                }
                try mount(true)
                try mirror.importSource()
                if let arguments { try mirror.start(arguments) }
                try body(mirror, mount)
                if mirror.pid != 0 { try mirror.stop() }
            }
        }

        @Test func `A source that is unmounted is down: readers wait, nothing is lost, and it heals by itself`() throws
        {
            try withMounted([]) { mirror, mount in
                #expect(try File.sameContent(mirror.at("a"), mirror.remote("a")))
                try mount(false)
                let reader = try Child(["sha256sum", mirror.at("b")])
                try until("the outage to be known") { try mirror.status().remote.isDown }
                #expect(try mirror.status().remote.cause?.contains("is away") == true)
                #expect(reader.poll() == nil)
                try mount(true)
                #expect(try reader.wait(seconds: 60).code == 0)
                #expect(try File.sameContent(mirror.at("b"), mirror.remote("b")))
                #expect(try mirror.state("b").flags == [])
            }
        }

        @Test func `With error reads fail at once, and a mount begins without its source`() throws {
            try withMounted(nil) { mirror, mount in
                try mount(false)
                try mirror.start(["--offline", "error"])
                #expect(File.readError(mirror.at("a")) == EIO)
                #expect(try mirror.state("a").flags == ["error"])
                #expect(try mirror.state("a").lastError?.contains("is away") == true)
                try mount(true)
                try until("it to be noticed") { try !mirror.status().remote.isDown }
                for name in ["a", "b", "c"] {
                    #expect(try File.sameContent(mirror.at(name), mirror.remote(name)))
                }
            }
        }

        @Test func `An import from a directory where nothing is mounted is refused, and nothing is touched`() throws {
            try withMounted(nil) { mirror, mount in
                try mount(false)
                try Data("stray".utf8).write(to: URL(fileURLWithPath: mirror.remote("stray")))
                let config = try Data(contentsOf: URL(fileURLWithPath: mirror.lower + "/.passhsm/config"))
                for arguments in [[], ["--delete"], ["--delete", "--max-delete", "100%"]] {
                    let output = try run([Machine.program, "import", mirror.source, mirror.lower] + arguments)
                    #expect(output.code != 0 && output.err.contains("is on another file system"), "\(output)")
                }
                #expect(try Data(contentsOf: URL(fileURLWithPath: mirror.lower + "/.passhsm/config")) == config)
                for name in ["a", "b", "c"] { #expect(try mirror.state(name, inLower: true).flags == []) }
                #expect(throws: (any Error).self) { try mirror.state("stray", inLower: true) }
            }
        }
    }
}
