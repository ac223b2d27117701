import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// Times that change without a request that says so are shown as the lower file has them, whatever the kernel may keep.
    @Suite struct Times {
        /// With a complete file, apart from its lower one, and attributes that are kept for a day.
        private func withFile(_ arguments: [String] = [], _ body: (Mirror) throws -> Void) throws {
            try withMirror(apart: true, mounting: ["--cache", "exclusive"] + arguments) { mirror throws in
                try Pattern.write(mirror.remote("file"), size: 20_000)
            } _: { mirror throws in
                _ = try File.bytes(mirror.at("file"))
                try until("the file to be put down") { try mirror.status().incompleteFiles == 0 }
                // Changed by its user: the lower file's own change time is shown.
                try shell("chmod 0640 file", in: mirror.mount)
                try body(mirror)
            }
        }

        /// Modification and change time in the mount, and whether they are the lower file's.
        private func times(_ mirror: Mirror) throws -> (nanoseconds: [Int], areRight: Bool) {
            let both = try [mirror.mount, mirror.tree].map { directory in
                let status = try File.stat(directory + "/file")
                return [status.st_mtim, status.st_ctim].map { $0.tv_sec * 1_000_000_000 + $0.tv_nsec }
            }
            return (both[0], both[0] == both[1])
        }

        private func requests(_ mirror: Mirror) throws -> Int {
            let requests = try mirror.status().requests
            return ["getattr", "statx"].reduce(0) { $0 + (requests[$1] ?? 0) }
        }

        /// A mapping of the file's first page.
        private func map(_ file: Descriptor) throws -> UnsafeMutablePointer<UInt8> {
            let mapping = mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file.raw, 0)
            return try #require(mapping != MAP_FAILED ? mapping : nil).assumingMemoryBound(to: UInt8.self)
        }

        /// Stores a byte, which faults, and so moves the times.
        private func store(_ mapping: UnsafeMutablePointer<UInt8>) {
            msync(mapping, 4096, MS_SYNC)
            usleep(20_000)
            mapping[0] &+= 1
        }

        @Test("A store through a mapping shows in stat, also when the descriptor is closed, and with long timeouts")
        func stores() throws {
            try withFile { mirror throws in
                var before = try times(mirror)
                func expectNews(_ what: String) throws {
                    let now = try times(mirror)
                    #expect(now.areRight && now.nanoseconds != before.nanoseconds, "\(what)")
                    before = now
                }
                var file: Descriptor? = try File.open(mirror.at("file"), O_RDWR)
                _ = try times(mirror)
                let mapping = try map(try #require(file))
                for _ in 0..<3 {
                    store(mapping)
                    try expectNews("with the file open")
                }
                file = nil
                for _ in 0..<3 {
                    store(mapping)
                    try expectNews("with the file closed")
                }
                // The daemon has looked whether the mapping is still there.
                usleep(2_200_000)
                for _ in 0..<3 {
                    store(mapping)
                    try expectNews("with the file closed for long")
                }
                store(mapping)
                munmap(mapping, 4096)
                try expectNews("unmapped")
                usleep(2_200_000)
                #expect(try times(mirror).nanoseconds == before.nanoseconds)
            }
        }

        @Test("A file that is made in the mount is no exception")
        func storesIntoNew() throws {
            try withFile { mirror throws in
                unlink(mirror.at("file"))
                let file = try File.open(mirror.at("file"), O_RDWR | O_CREAT | O_EXCL)
                try file.put([UInt8](repeating: 1, count: 4096), at: 0)
                let before = try times(mirror)
                let mapping = try map(file)
                store(mapping)
                let after = try times(mirror)
                #expect(after.areRight && after.nanoseconds != before.nanoseconds)
                munmap(mapping, 4096)
            }
        }

        @Test("Where the daemon reads and writes, a store shows when it is written back, at the latest by munmap(2)")
        func storesThroughDaemon() throws {
            try withFile(["--no-passthrough"]) { mirror throws in
                let file = try File.open(mirror.at("file"), O_RDWR)
                let mapping = try map(file)
                for isSynced in [true, false] {
                    let before = try times(mirror)
                    store(mapping)
                    if isSynced { msync(mapping, 4096, MS_SYNC) } else { munmap(mapping, 4096) }
                    let after = try times(mirror)
                    #expect(after.areRight && after.nanoseconds != before.nanoseconds)
                }
            }
        }

        @Test("Attributes are asked for again only while a file can be mapped for writing")
        func requestsOfStats() throws {
            try withFile { mirror throws in
                func requestsOfTen() throws -> Int {
                    _ = try File.stat(mirror.at("file"))
                    let before = try requests(mirror)
                    for _ in 0..<10 { _ = try File.stat(mirror.at("file")) }
                    return try requests(mirror) - before
                }
                #expect(try requestsOfTen() == 0)
                for (flags, count) in [(O_RDONLY, 0), (O_WRONLY, 0), (O_RDWR, 10)] {
                    let file = try File.open(mirror.at("file"), flags)
                    #expect(try requestsOfTen() == count)
                    withExtendedLifetime(file) {}
                }
                try until("the kernel to keep them again") { try requestsOfTen() == 0 }
            }
        }

        @Test("chattr moves the change time that stat shows")
        func flags() throws {
            try withFile { mirror throws in
                for change in ["+d", "-d"] {
                    let before = try times(mirror)
                    usleep(20_000)
                    try shell("chattr $1 file", in: mirror.mount, [change])
                    let after = try times(mirror)
                    #expect(after.areRight && after.nanoseconds != before.nanoseconds)
                }
            }
        }
    }
}
