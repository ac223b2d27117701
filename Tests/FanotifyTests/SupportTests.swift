import HSMSystem
import TestSupport
import Testing

@testable import HSMFanotify

@Suite struct SupportTests {
    @Test("A folder of a file system can be used, but only its mount be marked")
    func folder() throws {
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        let support = PreContentSupport(lower: BytePath(directory.path), mayAdministrate: true)
        #expect(support.obstacle == nil && !support.isWholeFileSystem)
        #expect(support.reservation?.contains("lower directory") == true)
        #expect(PreContentSupport(lower: nil, mayAdministrate: true).reservation?.contains("lower directory") == true)
    }

    @Test("A file system without such events is named, and a folder that is not there an obstacle too")
    func obstacles() {
        let proc = PreContentSupport(lower: BytePath("/proc"), mayAdministrate: true)
        #expect(proc.obstacle?.contains("(proc)") == true && proc.reservation == proc.obstacle)
        #expect(proc.isWholeFileSystem)
        #expect(PreContentSupport(lower: BytePath("/nowhere/at/all"), mayAdministrate: true).obstacle != nil)
    }

    @Test("The root of the machine is never marked as a whole")
    func root() {
        #expect(!PreContentSupport(lower: BytePath("/"), mayAdministrate: true).isWholeFileSystem)
    }

    @Test("A group without a mark has no mount, and denies nothing that it has not read")
    func group() throws {
        let group = try EventGroup()
        #expect(!group.hasMount(0) && group.denyAll(below: 100) == 0)
        #expect(throws: Errno(rawValue: 2)) { try group.answer(5, nil) }
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        let file = try Descriptor.open("\(directory.path)/file", 0o102, mode: 0o600)
        // Nothing is ignored yet, and both kinds of ignoring are taken back.
        try group.unignore(file)
        for ignored in [EventGroup.Ignored.all, .access] {
            group.ignore(ignored, of: file)
            try group.unignore(file)
        }
        #expect(!group.hasMount(0), "the mark of a file is none of a mount")
    }
}
