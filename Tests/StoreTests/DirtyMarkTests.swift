import Glibc
import HSMCore
import HSMSystem
import Testing

@testable import HSMStore

/// The dirty flag of complete files: set before they can be changed, taken back when they were not.
@Suite struct DirtyMarkTests {
    /// A complete file that was modified long ago.
    private func withFile(_ body: (StoreFixture, Descriptor) throws -> Void) throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: 5, state: .dual)
        try body(fixture, fixture.lower())
    }

    @Test("A marked file is dirty; unmarked without a change it is clean again, as often as one likes")
    func unchanged() throws {
        try withFile { fixture, file in
            for _ in 0..<3 {
                let mark = try #require(try fixture.store.markDirty(file))
                #expect(try fixture.record().flags == .dirty)
                #expect(try fixture.store.unmarkDirty(file, mark))
                #expect(try fixture.record().flags.isEmpty && fixture.record().state == .dual)
            }
        }
    }

    @Test(
        "A file that was written, resized, or written with its time put back stays dirty",
        arguments: [
            "printf x | dd of=file bs=1 conv=notrunc status=none", "truncate -s 6 file", "truncate -s 5 file",
            "t=$(stat -c %y file); printf y >> file; truncate -s 5 file; touch -d \"$t\" file",
        ])
    func changed(script: String) throws {
        try withFile { fixture, file in
            let mark = try #require(try fixture.store.markDirty(file))
            #expect(system("cd \(fixture.tree); \(script)") == 0)
            #expect(try !fixture.store.unmarkDirty(file, mark))
            #expect(try fixture.record().flags == .dirty)
        }
    }

    @Test("A file that is dirty already gives no mark, so that a second open takes nothing back")
    func second() throws {
        try withFile { fixture, file in
            let mark = try fixture.store.markDirty(file)
            #expect(mark != nil)
            #expect(try fixture.store.markDirty(fixture.lower()) == nil)
            #expect(try fixture.record().flags == .dirty)
        }
    }

    @Test("A file that was modified a moment ago gives no mark: a change could not be told by its times")
    func recent() throws {
        try withFile { fixture, file in
            try file.setTimes(access: FileTime.omit, modification: FileTime.now)
            #expect(try fixture.store.markDirty(file) == nil)
            #expect(try fixture.record().flags == .dirty)
        }
    }

    @Test("While anyone has the file open for writing, or mapped, the mark is not taken back")
    func otherWriter() throws {
        try withFile { fixture, file in
            let reader = try fixture.lower("file", O_RDONLY)
            let mark = try #require(try fixture.store.markDirty(file))
            let writer = try fixture.lower()
            let memory = mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, writer.raw, 0)
            #expect(fixture.store.isOpenForWriting(reader))
            munmap(memory, 4096)
            withExtendedLifetime((writer, mark)) {}
        }
        try withFile { fixture, file in
            let reader = try fixture.lower("file", O_RDONLY)
            #expect(fixture.store.isOpenForWriting(reader), "by this test")
            withExtendedLifetime(file) {}
        }
    }

    @Test("A local file is not marked, and one that is not complete is refused")
    func others() throws {
        try withFile { fixture, _ in
            #expect(try fixture.store.markDirty(fixture.lower("plain", O_RDWR | O_CREAT)) == nil)
            try fixture.stub("offline", size: 5)
            #expect(throws: Errno(rawValue: EIO)) { try fixture.store.markDirty(fixture.lower("offline")) }
            #expect(try fixture.record("offline").flags.isEmpty)
        }
    }
}
