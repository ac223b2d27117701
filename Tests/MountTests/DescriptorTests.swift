import CLinux
import Glibc
import HSMSystem
import Testing

extension MountTests {
    /// Open files that the daemon reads and writes, and the descriptors that they cost it.
    @Suite struct Descriptors {
        /// Opens the files `f0`, `f1` and so on, as far as they open; the errno of the one that does not.
        private func openAll(_ mirror: Mirror, _ count: Int) -> (files: [Descriptor], error: Int32) {
            var files: [Descriptor] = []
            for index in 0..<count {
                let raw = Glibc.open(mirror.at("f\(index)"), O_RDWR | O_CREAT, 0o644)
                if raw < 0 { return (files, errno) }
                files.append(Descriptor(owning: raw))
            }
            return (files, 0)
        }

        private func onMount(limit: String, _ body: (Mirror) throws -> Void) throws {
            try withMirror(mounting: nil) { mirror throws in
                try File.put("known", mirror.remote("known"))
            } _: { mirror throws in
                try mirror.start(["--no-passthrough"], by: ["prlimit", "--nofile=\(limit)"])
                try body(mirror)
            }
        }

        @Test("The daemon raises its limit of descriptors as far as it may")
        func raised() throws {
            try onMount(limit: "64:4096") { mirror throws in
                let (files, error) = openAll(mirror, 500)
                #expect(files.count == 500 && error == 0)
            }
        }

        @Test("Beyond it another file does not open, nor is it made, and those that are open work")
        func exhausted() throws {
            try onMount(limit: "64:64") { mirror throws in
                let (files, error) = openAll(mirror, 500)
                #expect(files.count > 8 && files.count < 48 && error == EMFILE)
                #expect(Glibc.open(mirror.mount, PASSHSM_O_TMPFILE | O_RDWR, 0o644) == -1 && errno == EMFILE)
                #expect(try shell("ls", in: mirror.mount).split(separator: "\n").count == files.count + 1)
                for file in files {
                    try file.put(Array("abc".utf8), at: 0)
                    #expect(try file.bytes(0..<9) == Array("abc".utf8))
                }
            }
        }

        @Test("Handles of one file take one descriptor, and each has its own flock")
        func shared() throws {
            try onMount(limit: "64:64") { mirror throws in
                let readers = try (0..<500).map { _ in try File.open(mirror.at("known")) }
                let writers = try (0..<500).map { _ in try File.open(mirror.at("known"), O_RDWR | O_APPEND) }
                try writers[499].put(Array("!".utf8), at: 0)
                #expect(try readers[499].bytes(0..<9) == Array("known!".utf8))
                #expect(passhsm_flock(readers[0].raw, LOCK_EX | LOCK_NB) == 0)
                #expect(passhsm_flock(readers[1].raw, LOCK_SH | LOCK_NB) == -1 && errno == EWOULDBLOCK)
                #expect(passhsm_flock(writers[0].raw, LOCK_SH | LOCK_NB) == -1 && errno == EWOULDBLOCK)
                #expect(passhsm_flock(readers[0].raw, LOCK_UN) == 0)
                #expect(passhsm_flock(readers[1].raw, LOCK_EX | LOCK_NB) == 0)
            }
        }
    }
}
