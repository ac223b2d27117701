import Glibc
import HSMSystem
import StoreTestSupport
import TestSupport
import Testing

@testable import HSMFanotify

/// A guardian that runs in a thread of the test. Its group has no mark: for it the mount is gone.
@Suite(.serialized) struct GuardianTests {
    private static let mount = GuardedMount(
        mountpoint: BytePath("/mnt/a"), lower: BytePath("/srv/a"), takeoverSeconds: 5, isWholeFileSystem: true)

    private func withGuardian(_ body: (GuardianAddress, Flag) throws -> Void) throws {
        // A guardian ignores signals and changes its process's rank when memory is short.
        let signals = [SIGTERM, SIGINT, SIGHUP, SIGPIPE]
        let old = signals.map { signal($0, SIG_DFL) }
        let rank = try SmallFile.read(BytePath("/proc/self/oom_score_adj"), limit: 100)
        defer {
            for (number, handler) in zip(signals, old) { signal(number, handler) }
            if let file = try? Descriptor.open("/proc/self/oom_score_adj", O_WRONLY) { try? file.put(rank, at: 0) }
        }
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        let folder = try Descriptor.open(directory.path, O_RDONLY | O_DIRECTORY)
        let address = GuardianAddress(folder: folder, name: "guardian-1-2")
        let end = Flag()
        try startThread(name: "guardian") {
            if let guardian = try? Guardian(address, log: .silent) { guardian.run() }
            end.set()
        }
        try until("the guardian") { (try? GuardianLink(address)) != nil }
        try body(address, end)
    }

    /// The descriptors that a daemon hands over.
    private func descriptors() throws -> [Descriptor] {
        [
            try EventGroup().descriptor, try EventTable(count: 1024).memory,
            try Descriptor.open("/", O_RDONLY | O_DIRECTORY),
        ]
    }

    private func errno(_ body: () throws(Errno) -> Void) -> Int32 {
        do throws(Errno) { try body() } catch { return error.rawValue }
        return 0
    }

    @Test("A guardian keeps one mount, serves one daemon, and hands the descriptors to the next one")
    func life() throws {
        try withGuardian { address, end throws in
            #expect(GuardianAddress.all(in: address.folder).map(\.name) == [address.name])
            let other = try GuardianLink(address)
            #expect(try other.tell() == nil && other.take() == nil)
            var daemon: GuardianLink? = try GuardianLink(address)
            let handed = try descriptors()
            #expect(errno { () throws(Errno) in try daemon?.keep(Self.mount, Array(handed[..<2])) } == EBUSY)
            try daemon?.keep(Self.mount, handed)
            #expect(errno { () throws(Errno) in try other.keep(Self.mount, handed) } == EBUSY)
            let told = try #require(try other.tell())
            #expect(told.mount == Self.mount && told.isServed)
            #expect(try other.take() == nil, "a daemon serves it")
            #expect(errno { () throws(Errno) in try other.end() } == EBUSY)
            #expect(!end.isSet)
            // The daemon is gone, and so is its mount: nothing is left to guard.
            daemon = nil
            other.waitForEnd()
            try until("the end") { end.isSet }
            #expect(GuardianAddress.all(in: address.folder).isEmpty)
        }
    }

    @Test("A daemon that ends its mount says so, and the guardian ends with the mount")
    func ended() throws {
        try withGuardian { address, end throws in
            var daemon: GuardianLink? = try GuardianLink(address)
            try daemon?.keep(Self.mount, descriptors())
            try daemon?.end()
            #expect(try GuardianLink(address).take() == nil)
            daemon = nil
            try until("the end") { end.isSet }
        }
    }

    @Test("What no guardian could have been sent ends the connection, and nothing else")
    func hostile() throws {
        try withGuardian { address, end throws in
            for line in [[], Array("{}".utf8), Array("{\"take\":7}".utf8), [0xff, 0xfe]] as [[UInt8]] {
                let link = try GuardianLink(address)
                try? link.socket.send(line, [], until: Deadline(seconds: 1))
                _ = try? link.socket.receive(until: Deadline(seconds: 1))
            }
            let daemon = try GuardianLink(address)
            #expect(try daemon.tell() == nil)
            try daemon.keep(Self.mount, descriptors())
            #expect(!end.isSet)
        }
    }

    @Test("The time for a takeover is limited, whatever was sent")
    func takeover() {
        var mount = Self.mount
        for (seconds, expected) in [(-5, 0), (7, 7), (1e300, 1e9)] as [(Double, Double)] {
            mount.takeoverSeconds = seconds
            #expect(mount.takeover == .seconds(expected))
        }
    }

    @Test("A guardian is found by the tree's device and inode")
    func address() throws {
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        let folder = try Descriptor.open(directory.path, O_RDONLY | O_DIRECTORY)
        let status = try folder.stat()
        let plain = try GuardianAddress(folder: folder, lower: BytePath(directory.path))
        #expect(plain.name == "guardian-\(status.st_dev)-\(status.st_ino)")
        directory.shell("mkdir -p .passhsm/tree; touch other")
        let tree = try Descriptor.open("\(directory.path)/.passhsm/tree", O_RDONLY).stat()
        let address = try GuardianAddress(folder: folder, lower: BytePath(directory.path))
        #expect(address.name == "guardian-\(tree.st_dev)-\(tree.st_ino)")
        #expect(GuardianAddress.all(in: folder).isEmpty)
        #expect(throws: Errno(rawValue: ENOENT)) { try GuardianLink(address, seconds: 0.1) }
    }
}
