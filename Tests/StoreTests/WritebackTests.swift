import Glibc
import HSMCore
import HSMSystem
import Testing

@testable import HSMStore

/// Data that the lower file system took, and could not write back.
@Suite struct WritebackTests {
    private static let size = 8 << 20

    /// A store on a disk that has less room than it says.
    private func withBadDisk(_ body: (StoreFixture) throws -> Void) throws {
        let outer = try StoreFixture()
        defer { outer.remove() }
        let script = """
            set -e; cd \(outer.path); mkdir memory disk; mount -t tmpfs -o size=6m none memory
            truncate -s 64M memory/image; mkfs.ext4 -q -O ^has_journal memory/image; mount -o loop memory/image disk
            """
        #expect(system(script) == 0, "the tests of a failing disk want root and a loop device")
        defer { system("cd \(outer.path); umount -l disk; umount -l memory") }
        try body(StoreFixture(in: outer.path + "/disk"))
    }

    @Test("What could not be written back is not recorded, however often the sync is tried again")
    func lost() throws {
        try withBadDisk { fixture in
            try fixture.stub(size: Self.size, granuleSize: 64 << 10)
            do {
                let file = try fixture.use()
                try fixture.fill(0..<Self.size, of: file)
                for _ in 0..<3 { #expect(throws: Errno.self) { try file.stored.commit() } }
                #expect(!file.stored.isFinished && !file.stored.hasPending, "it can be put down, and fetched again")
            }
            #expect(try fixture.record().state == .offline)
            #expect(try fixture.use().granules.isEmpty)
        }
    }

    @Test("A file whose error somebody else was told is not recorded, in a group that is synced together, either")
    func toldElsewhere() throws {
        try withBadDisk { fixture in
            for name in (0..<9).map({ "file\($0)" }) { try fixture.stub(name, size: 10) }
            try fixture.stub(size: Self.size, granuleSize: 64 << 10)
            do {
                let file = try fixture.use()
                try fixture.fill(0..<Self.size, of: file)
                #expect(throws: Errno.self) { try fixture.store.tree.directory.original.syncFileSystem() }
                for name in (0..<9).map({ "file\($0)" }) {
                    file.stored.store.committer.schedule(try fixture.use(name).stored)
                }
                try fixture.store.tree.directory.original.syncFileSystem()
                fixture.store.drain()
                #expect(!file.stored.isFinished)
            }
            #expect(try fixture.record().state == .offline)
        }
    }
}
