import Foundation
import Glibc
import HSMSystem
import Synchronization
import TestSupport
import Testing

extension MountTests {
    /// Where the daemon reads and writes, the kernel's pages are what was written last, by whomever.
    @Suite struct Coherence {
        /// Each of some threads writes a record of a page that they share, and reads it again, while the file is looked at,
        /// opened and closed; the count of those that were not what had just been written.
        private func wrongRecords(_ path: String, seconds: Double) throws -> Int {
            let wrong = Atomic(0)
            let end = Clock.now + seconds
            let done = DispatchGroup()
            for number in 0..<4 {
                let file = try File.open(path, O_RDWR)
                done.enter()
                Thread.detachNewThread {
                    defer { done.leave() }
                    var turn = 0
                    while Clock.now < end {
                        turn += 1
                        let record = Pattern.bytes(0..<512, seed: turn * 4 + number)
                        let isRight =
                            (try? file.put(record, at: number * 512)) != nil
                            && (try? file.bytes(number * 512..<(number + 1) * 512)) == record
                        if !isRight { wrong.add(1, ordering: .relaxed) }
                        if number == 0 { _ = try? File.stat(path) }
                        if number == 1 && turn % 7 == 0 { _ = try? File.open(path) }
                    }
                }
            }
            done.wait()
            return wrong.load(ordering: .relaxed)
        }

        @Test(
            "What a process wrote it reads, whoever writes to the same page",
            arguments: ["shared", "exclusive", "none"])
        func ownWrites(cache: String) throws {
            try withMirror(mounting: ["--no-passthrough", "--cache", cache]) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 8192)
            } _: { mirror throws in
                #expect(try wrongRecords(mirror.at("file"), seconds: 2) == 0)
            }
        }

        @Test("So it does in a file that is not all there")
        func ownWritesWhileFilling() throws {
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 32 << 20)
            } _: { mirror throws in
                _ = try File.bytes(mirror.at("file"), 0..<8192)
                try mirror.hold()
                #expect(try wrongRecords(mirror.at("file"), seconds: 2) == 0)
                #expect(try mirror.state("file").state == "partial")
                mirror.letGo()
            }
        }

        /// With a complete file that nobody has open.
        private func withFile(_ body: (Mirror) throws -> Void) throws {
            try withMirror(apart: true, mounting: ["--no-passthrough"]) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 10_000)
            } _: { mirror throws in
                _ = try File.bytes(mirror.at("file"))
                try until("the file to be put down") { try mirror.status().incompleteFiles == 0 }
                try body(mirror)
            }
        }

        /// What `handle` reads becomes `bytes` within the time that the README promises, and a little more for the machine.
        private func expectSoon(_ bytes: [UInt8], _ handle: Descriptor) throws {
            try until("the change to be seen", seconds: 5) { try handle.bytes(0..<bytes.count) == bytes }
        }

        @Test("A change behind the mount is seen by who has the file open, and at once by who opens it")
        func changeByOthers() throws {
            try withFile { mirror in
                let behind = try File.open(mirror.tree + "/file", O_RDWR)
                let handle = try File.open(mirror.at("file"))
                for seed in 1...3 {
                    #expect(try handle.bytes(0..<10_000) == Pattern.bytes(0..<10_000, seed: seed - 1))
                    usleep(20_000)
                    try behind.put(Pattern.bytes(0..<10_000, seed: seed), at: 0)
                    if seed == 1 {
                        try expectSoon(Pattern.bytes(0..<10_000, seed: seed), handle)
                    } else {
                        let other = try File.open(mirror.at("file"))
                        #expect(try other.bytes(0..<10_000) == Pattern.bytes(0..<10_000, seed: seed))
                    }
                }
            }
        }

        @Test("A change behind the mount of a file that is open for writing is seen when it is closed")
        func changeWhileWriting() throws {
            try withFile { mirror in
                let behind = try File.open(mirror.tree + "/file", O_RDWR)
                let reader = try File.open(mirror.at("file"))
                var writer: Descriptor? = try File.open(mirror.at("file"), O_RDWR)
                #expect(try reader.bytes(0..<10_000) == Pattern.bytes(0..<10_000))
                try behind.put([1, 2, 3], at: 0)
                try writer?.put([4, 5, 6], at: 9000)
                sleep(2)
                #expect(try reader.bytes(9000..<9003) == [4, 5, 6])
                writer = nil
                try expectSoon([1, 2, 3], reader)
                #expect(try reader.bytes(9000..<9003) == [4, 5, 6])
            }
        }

        /// With a file of 96 MiB of which nothing is there.
        private func withLargeFile(_ body: (Mirror) throws -> Void) throws {
            try withMirror(mounting: ["--fill", "read"]) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 96 << 20)
            } _: { mirror throws in
                try body(mirror)
            }
        }

        /// Reads it from front to back through `reader`, and returns how much of it the mount has in
        /// its pages then, when that has become less than `bound`.
        private func pagesAfterReading(_ mirror: Mirror, _ reader: Descriptor, until bound: Int) throws -> Int {
            let size = 96 << 20
            // By a handle of its own: what is read through the mapping is not in the reader's order.
            let mapped = try File.open(mirror.at("file"))
            let mapping = try #require(mmap(nil, size, PROT_READ, MAP_SHARED, mapped.raw, 0))
            defer { munmap(mapping, size) }
            func inMemory() -> Int {
                var pages = [UInt8](repeating: 0, count: size / 4096)
                mincore(mapping, size, &pages)
                return pages.count { $0 & 1 != 0 } * 4096
            }
            #expect(mapping != MAP_FAILED)
            for offset in stride(from: 0, to: size, by: 1 << 20) {
                let range = offset..<offset + 1 << 20
                let isRight = try reader.bytes(range) == Pattern.bytes(range)
                #expect(isRight, "\(range)")
                // The first page is used all the time, through the mapping.
                let first = UnsafeRawBufferPointer(start: mapping, count: 4096).elementsEqual(Pattern.bytes(0..<4096))
                #expect(first)
            }
            if bound < size { try until("pages to be dropped") { inMemory() < bound } }
            return inMemory()
        }

        @Test("Of a large file that fills the mount keeps only the pages that were read last")
        func pagesBehind() throws {
            try withLargeFile { mirror in
                let reader = try File.open(mirror.at("file"))
                _ = try pagesAfterReading(mirror, reader, until: 40 << 20)
            }
        }

        @Test("Nor is anything dropped that somebody waits for: who opens the file does not wait with him")
        func pagesBehindWaiting() throws {
            try withLargeFile { mirror in
                try mirror.hold()
                let shared = try File.open(mirror.at("file"))
                let wrong = Atomic(0)
                let done = DispatchGroup()
                for offset in stride(from: 0, to: 64 << 20, by: 1 << 20) {
                    done.enter()
                    Thread.detachNewThread {
                        defer { done.leave() }
                        let range = offset..<offset + 1 << 20
                        if (try? shared.bytes(range)) != Pattern.bytes(range) { wrong.add(1, ordering: .relaxed) }
                    }
                    // In this order.
                    usleep(3000)
                }
                let opened = try run(["head", "-c", "0", mirror.at("file")], seconds: 10)
                #expect(opened.code == 0, "\(opened)")
                mirror.letGo()
                done.wait()
                #expect(wrong.load(ordering: .relaxed) == 0)
            }
        }

        @Test("But nothing is dropped while somebody may write")
        func pagesBehindWriter() throws {
            try withLargeFile { mirror in
                let reader = try File.open(mirror.at("file"))
                let writer = try File.open(mirror.at("file"), O_RDWR)
                #expect(try pagesAfterReading(mirror, reader, until: .max) > 64 << 20)
                withExtendedLifetime(writer) {}
            }
        }
    }
}
