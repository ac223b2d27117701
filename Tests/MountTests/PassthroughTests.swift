import Foundation
import Glibc
import HSMSystem
import Synchronization
import TestSupport
import Testing

extension MountTests {
    /// 4: complete files are the kernel's own business.
    @Suite struct Passthrough {
        /// With the daemon stopped, whoever has the file open reads it, writes it, and reads what was written.
        private func readsAndWritesWithoutDaemon(_ mirror: Mirror, _ name: String) throws -> Bool {
            let file = try File.open(mirror.at(name), O_RDWR)
            // The kernel asks for security.capability at the first write after it got the attributes.
            try file.put([0], at: 65_536)
            let expected = try File.bytes(mirror.remote(name), 0..<65_536)
            Glibc.kill(mirror.pid, SIGSTOP)
            defer { Glibc.kill(mirror.pid, SIGCONT) }
            let isRight = Mutex<Bool?>(nil)
            // On a thread of its own: a request to the stopped daemon would wait for ever.
            try startThread(name: "stopped") {
                let head = try? file.bytes(0..<65_536)
                try? file.put(Array("written".utf8), at: 65_536)
                let rest = try? file.bytes(65_536..<65_543)
                isRight.withLock { $0 = head == expected && rest == Array("written".utf8) }
            }
            try? until("the thread", seconds: 10) { isRight.withLock { $0 } != nil }
            let result = isRight.withLock { $0 } ?? false
            Glibc.kill(mirror.pid, SIGCONT)
            try until("the thread, after all", seconds: 30) { isRight.withLock { $0 } != nil }
            return result
        }

        @Test("With the daemon stopped, an open complete file still reads and writes")
        func stopped() throws {
            try withMirror { mirror throws in
                try Pattern.write(mirror.remote("small"), size: 200_000)
                try Pattern.write(mirror.remote("large"), size: 5 << 20)
            } _: { mirror throws in
                let passthrough = try mirror.status().passthrough
                #expect(passthrough.enabled, "\(passthrough.reason)")
                #expect(try readsAndWritesWithoutDaemon(mirror, "small"), "filled by its open")
                #expect(try File.sameContent(mirror.remote("large"), mirror.at("large")))
                try until("the release of the cached handle") { try mirror.status().openHandles == 0 }
                #expect(try readsAndWritesWithoutDaemon(mirror, "large"), "filled by its reads")
                #expect(try File.bytes(mirror.at("small"), 65_536..<65_543) == Array("written".utf8))
                #expect(try mirror.state("small").flags.contains("dirty"))
            }
        }

        @Test("The first open of each of many small files is a passthrough open, for reading and for writing")
        func manyFiles() throws {
            // More than the backing ids that are kept.
            let count = 5000
            try withMirror { mirror throws in
                for index in 0..<count { try Pattern.write(mirror.remote("f\(index)"), size: 10, seed: index) }
            } _: { mirror throws in
                for index in 0..<count {
                    let file = try File.open(mirror.at("f\(index)"), index % 100 == 0 ? O_RDWR : O_RDONLY)
                    #expect(try file.bytes(0..<20) == Pattern.bytes(0..<10, seed: index))
                }
                let status = try mirror.status()
                #expect(status.counter("hits") == 0, "no read reached the daemon")
                #expect(status.backingIDs < count)
            }
        }

        @Test("A file that was only opened for writing, and not written, is not dirty")
        func notWritten() throws {
            try withMirror { mirror throws in
                try Pattern.write(mirror.remote("small"), size: 1000)
                // Of a file that was changed just now, a further change could not be told.
                try shell("touch -d 2020-01-01 small", in: mirror.source)
            } _: { mirror throws in
                _ = try File.bytes(mirror.at("small"))
                do { _ = try File.open(mirror.at("small"), O_RDWR) }
                try until("the flag to be taken back") { try !mirror.state("small").flags.contains("dirty") }
                #expect(try mirror.state("small").state == "dual")
            }
        }

        @Test("Handles from before and after the completion of a file work together, and then passthrough comes back")
        func mixedHandles() throws {
            let size = 4 << 20
            try withMirror { mirror throws in
                try Pattern.write(mirror.remote("file"), size: size)
            } _: { mirror throws in
                do {
                    let early = try File.open(mirror.at("file"), O_RDWR)
                    #expect(try early.bytes(0..<10) == Pattern.bytes(0..<10))
                    #expect(try File.bytes(mirror.at("file")) == Pattern.bytes(0..<size))
                    let late = try File.open(mirror.at("file"), O_RDWR)
                    try late.put([1, 2, 3], at: 100)
                    #expect(try early.bytes(99..<104) == [Pattern.byte(at: 99), 1, 2, 3, Pattern.byte(at: 103)])
                    try early.put([9], at: 101)
                    #expect(try late.bytes(100..<103) == [1, 9, 3])
                }
                try until("all handles to be released") { try mirror.status().openHandles == 0 }
                let again = try File.open(mirror.at("file"), O_RDWR)
                #expect(try again.bytes(99..<104) == [Pattern.byte(at: 99), 1, 9, 3, Pattern.byte(at: 103)])
                #expect(try mirror.status().backingIDs == 1)
            }
        }

        @Test("Without passthrough everything works the same, and status says so")
        func off() throws {
            try withMirror(mounting: ["--no-passthrough"]) { mirror throws in
                try Trees.special(mirror.source)
            } _: { mirror throws in
                let status = try mirror.status()
                #expect(!status.passthrough.enabled && !status.passthrough.reason.isEmpty)
                #expect(try Trees.difference(mirror.source, mirror.mount, .digests) == nil)
                #expect(try Trees.difference(mirror.source, mirror.mount, .metadata) == nil)
                try Pattern.write(mirror.at("new"), size: 300_000, seed: 3)
                #expect(try File.bytes(mirror.at("new")) == Pattern.bytes(0..<300_000, seed: 3))
                #expect(try mirror.status().backingIDs == 0)
            }
        }
    }
}
