import CFuse
import CLinux
import Glibc
import HSMCore
import HSMFuseDoor
import HSMStore
import HSMSystem
import Logging
import TestSupport
import Testing

@testable import HSMFuse

@Suite struct ForgetTests {
    @Test("An inode is kept until as many references are given back as the kernel got")
    func counted() throws {
        try withFuse { fuse throws in
            let node = try fuse.lookup("file").nodeid
            for _ in 0..<3 { _ = try fuse.lookup("file") }
            fuse.forget(node, 3)
            #expect(fuse.fileSystem.inodes.find(node) != nil)
            fuse.forget(node, 1)
            #expect(fuse.fileSystem.inodes.find(node) == nil && fuse.fileSystem.inodes.count == 0)
            // More than there are, and of nothing.
            fuse.forget(node, .max)
            fuse.forget(1, .max)
            #expect(try fuse.lookup("file").nodeid == node)
            fuse.forget(node, .max)
            #expect(fuse.fileSystem.inodes.count == 0)
            #expect(try fuse.attributes(1).mode & S_IFMT == S_IFDIR)
        }
    }

    @Test("BATCH_FORGET gives back many at once, and one that is cut off what is there")
    func batch() throws {
        try withFuse(files: ["a", "b", "c"]) { fuse throws in
            let nodes = try ["a", "b", "c"].map { try fuse.lookup($0).nodeid }
            _ = try fuse.lookup("b")
            let ones = zip(nodes, [1, 1, 1] as [UInt64]).flatMap { bytes(of: fuse_forget_one(nodeid: $0, nlookup: $1)) }
            _ = fuse.send(FUSE_BATCH_FORGET, 0, bytes(of: fuse_batch_forget_in(count: 3, dummy: 0)) + ones)
            #expect(nodes.map { fuse.fileSystem.inodes.find($0) != nil } == [false, true, false])
            let one = bytes(of: fuse_forget_one(nodeid: nodes[1], nlookup: 1))
            _ = fuse.send(FUSE_BATCH_FORGET, 0, bytes(of: fuse_batch_forget_in(count: .max, dummy: 0)) + one)
            #expect(fuse.fileSystem.inodes.count == 0)
        }
    }

    @Test("An inode whose file is in use outlives FORGET, so that a file never has two")
    func inUse() throws {
        try withFuse {
            $0.fill = .read
        } _: { fuse throws in
            let node = try fuse.lookup("file").nodeid
            let handle = try fuse.open(node).fh
            _ = try fuse.read(node, handle, 0..<100)
            let inode = try #require(fuse.fileSystem.inodes.find(node))
            fuse.forget(node)
            #expect(fuse.fileSystem.inodes.find(node) === inode)
            #expect(try fuse.lookup("file").nodeid == node)
            #expect(fuse.fileSystem.inodes.find(node) === inode)
            fuse.forget(node)
            try fuse.close(node, handle)
            try until("the end of the use") {
                fuse.fileSystem.sweep()
                return fuse.fileSystem.inodes.find(node) == nil
            }
        }
    }

    @Test("The record of a file without a name goes with its last reference")
    func unlinked() throws {
        try withFuse { fuse throws in
            let node = try fuse.lookup("file").nodeid
            let handle = try fuse.open(node).fh
            let inode = try #require(fuse.fileSystem.inodes.find(node))
            try fuse.unlink("file")
            #expect(inode.state.withLock { $0.nameless != nil && $0.isUnlinked })
            try fuse.close(node, handle)
            try until("the end of the use") { inode.content == nil }
            fuse.forget(node)
            #expect(inode.state.withLock { $0.nameless == nil })
            #expect(throws: Errno(rawValue: ESTALE)) { try fuse.fileSystem.open(inode, PASSHSM_O_PATH) }
        }
    }

    /// A second daemon for the same lower directory, which has not given out any id.
    private func successor(of fuse: FuseFixture) throws -> (Connection, ScriptedKernel) {
        let log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let pool = BlockingPool(name: "other", limit: 2)
        let next = try FileSystem(
            store: fuse.store, engine: fuse.engine, options: FuseMount.Options(), pool: pool, log: log)
        let kernel = ScriptedKernel()
        return (Connection(kernel, next.wishes, next), kernel)
    }

    @Test("A successor finds the inodes of the ids that the kernel has, and no others")
    func successor() throws {
        try withFuse { fuse throws in
            let node = try fuse.lookup("file").nodeid
            let folder = try fuse.mkdir("folder").nodeid
            _ = try fuse.mkdir("inside", in: folder)
            let gone = try fuse.mkdir("gone").nodeid
            try fuse.success(FUSE_RMDIR, 1, text("gone"))
            fuse.forget(gone)
            let (connection, kernel) = try successor(of: fuse)
            func attributes(_ node: UInt64) throws -> ScriptedKernel.Answer {
                try kernel.wait(for: kernel.send(FUSE_GETATTR, node, bytes(of: fuse_getattr_in()), to: connection))
            }
            let file = try attributes(node)
            #expect(file.code == 0)
            #expect(try file.value(fuse_attr_out.self).attr.ino == UInt64(fuse.lowerStatus("file").st_ino))
            let lookup = kernel.send(FUSE_LOOKUP, folder, text("inside"), to: connection)
            #expect(try kernel.wait(for: lookup).code == 0)
            let parent = kernel.send(FUSE_LOOKUP, folder, text(".."), to: connection)
            #expect(try kernel.wait(for: parent).value(fuse_entry_out.self).nodeid == 1)
            #expect(try attributes(gone).code == ESTALE)
            // The store's own files and folders, and what lies above, are not shown.
            let numbering = try #require(fuse.fileSystem.tree.numbering)
            for path in ["", "/.passhsm", "/.passhsm/tmp", "/.."] {
                guard let file = try? Descriptor.open("\(fuse.directory.path)\(path)", PASSHSM_O_PATH),
                    let number = numbering.number(of: try FileHandle(of: file))
                else { continue }
                #expect(try attributes(number).code == ESTALE, "\(path)")
            }
            // A file handle's id comes as a lookup of ".".
            let own = kernel.send(FUSE_LOOKUP, folder, text("."), to: connection)
            #expect(try kernel.wait(for: own).value(fuse_entry_out.self).nodeid == folder)
        }
    }

    @Test("A number that was used before has another inode only under another id")
    func reused() throws {
        try withFuse { fuse throws in
            try fuse.makeLocal("local", [1])
            let first = try fuse.lookup("local")
            try fuse.unlink("local")
            fuse.forget(first.nodeid)
            try fuse.makeLocal("local", [2])
            let second = try fuse.lookup("local")
            #expect(second.nodeid != first.nodeid || second.generation != first.generation)
            if second.attr.ino == first.attr.ino {
                #expect(try fuse.call(FUSE_GETATTR, first.nodeid, bytes(of: fuse_getattr_in())).code == ESTALE)
            }
        }
    }

    @Test("A table without numbers of its own makes ids up, which lead to their inodes until they are forgotten")
    func madeUp() throws {
        let table = InodeTable(numbering: nil)
        func handle(_ number: UInt64) throws -> FileHandle {
            try #require(FileHandle(type: 1, bytes: bytes(of: number)))
        }
        func make(_ handle: FileHandle) -> (NodeID) -> Inode {
            { Inode(handle: handle, id: $0, type: S_IFREG, path: nil, residence: .local) }
        }
        let inodes = try (0..<100).map { number in
            let handle = try handle(UInt64(number))
            return table.insert(handle, make(handle))
        }
        #expect(Set(inodes.map(\.node)).count == 100 && table.count == 100)
        #expect(inodes.allSatisfy { $0.node >= NodeNumbering.firstFree })
        for (number, inode) in inodes.enumerated() {
            let handle = try handle(UInt64(number))
            #expect(table.find(inode.node) === inode && table.find(handle) === inode)
            #expect(table.insert(handle, make(handle)) === inode)
            #expect(table.reference(handle) === inode)
        }
        #expect(table.count { $0.node & 1 == 0 } + table.count { $0.node & 1 == 1 } == 100)
        for inode in inodes {
            #expect(!table.forget(inode, 2))
            #expect(table.forget(inode, 1))
            #expect(table.find(inode.node) == nil && table.find(inode.handle) == nil)
        }
        #expect(table.count == 0)
        #expect(table.reference(try handle(5)) == nil)
    }
}
