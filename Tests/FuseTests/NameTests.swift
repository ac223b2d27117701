import CFuse
import CLinux
import Glibc
import HSMFuseDoor
import HSMSystem
import TestSupport
import Testing

@testable import HSMFuse

@Suite struct NameTests {
    @Test("A lookup tells the lower file's attributes, and how long they may be believed")
    func lookup() throws {
        try withFuse { fuse throws in
            let entry = try fuse.lookup("file")
            let status = try fuse.lowerStatus("file")
            #expect(entry.attr.ino == UInt64(status.st_ino) && entry.attr.mode == status.st_mode)
            #expect(entry.attr.size == UInt64(FuseFixture.size))
            // A sparse lower file is shown without holes.
            #expect(entry.attr.blocks == UInt64(FuseFixture.size / 512) && status.st_blocks < 8)
            #expect(entry.entry_valid == 1 && entry.attr_valid == 1)
            #expect(try fuse.lookup("file").nodeid == entry.nodeid)
        }
    }

    @Test("Dot is the inode itself, and dot-dot its parent")
    func dots() throws {
        try withFuse { fuse throws in
            let outer = try fuse.mkdir("outer")
            let inner = try fuse.mkdir("inner", in: outer.nodeid)
            #expect(try fuse.lookup(".", in: 1).nodeid == 1)
            #expect(try fuse.lookup("..", in: 1).nodeid == 1)
            #expect(try fuse.lookup(".", in: inner.nodeid).nodeid == inner.nodeid)
            #expect(try fuse.lookup("..", in: inner.nodeid).nodeid == outer.nodeid)
            #expect(try fuse.lookup("..", in: outer.nodeid).nodeid == 1)
            #expect(throws: Errno(rawValue: ESTALE)) { try fuse.lookup(".", in: 0xffff_0000_0000_0001) }
        }
    }

    @Test("A missing name is ENOENT; with an exclusive cache the kernel may remember that")
    func missing() throws {
        try withFuse { fuse throws in
            #expect(throws: Errno(rawValue: ENOENT)) { try fuse.lookup("nothing") }
        }
        try withFuse {
            $0.cache = .exclusive
        } _: { fuse throws in
            let entry = try fuse.lookup("nothing")
            #expect(entry.nodeid == 0 && entry.entry_valid == 86400)
            let hidden = try fuse.lookup(".passhsm")
            #expect(hidden.nodeid == 0)
        }
    }

    @Test("With no cache the kernel believes nothing")
    func uncached() throws {
        try withFuse {
            $0.cache = .none
        } _: { fuse throws in
            let entry = try fuse.lookup("file")
            #expect(entry.entry_valid == 0 && entry.attr_valid == 0 && entry.entry_valid_nsec == 0)
        }
    }

    @Test("The store's folder cannot be reached, made, replaced or renamed")
    func hidden() throws {
        try withFuse { fuse throws in
            #expect(throws: Errno(rawValue: ENOENT)) { try fuse.lookup(".passhsm") }
            #expect(throws: Errno(rawValue: EPERM)) { try fuse.mkdir(".passhsm") }
            #expect(throws: Errno(rawValue: EPERM)) { try fuse.create(".passhsm") }
            #expect(throws: Errno(rawValue: EPERM)) { try fuse.rename("file", to: ".passhsm") }
            #expect(throws: Errno(rawValue: EPERM)) { try fuse.rename(".passhsm", to: "other") }
            let node = try fuse.lookup("file").nodeid
            let link = bytes(of: fuse_link_in(oldnodeid: node)) + text(".passhsm")
            #expect(try fuse.call(FUSE_LINK, 1, link).code == EPERM)
            // Elsewhere it is a name like any other.
            let folder = try fuse.mkdir("folder").nodeid
            #expect(try fuse.mkdir(".passhsm", in: folder).nodeid != 0)
        }
    }

    @Test("New names belong to the caller, with the umask of the request")
    func ownership() throws {
        try withFuse { fuse throws in
            let entry = try fuse.mkdir("folder", mode: 0o777, umask: 0o027, as: .stranger)
            let status = try fuse.lowerStatus("folder")
            #expect(status.st_uid == 4321 && status.st_gid == 8765 && status.st_mode == S_IFDIR | 0o750)
            #expect(entry.attr.uid == 4321 && entry.attr.mode == S_IFDIR | 0o750)
            let node = fuse_mknod_in(mode: S_IFIFO | 0o666, rdev: 0, umask: 0o002, padding: 0)
            let pipe = try fuse.success(FUSE_MKNOD, 1, bytes(of: node) + text("pipe"), as: .stranger)
            #expect(try pipe.value(fuse_entry_out.self).attr.mode == S_IFIFO | 0o664)
            #expect(try fuse.lowerStatus("pipe").st_uid == 4321)
            // The thread is the daemon's own user again.
            try fuse.makeLocal("own", [1])
            #expect(try fuse.lowerStatus("own").st_uid == geteuid())
        }
    }

    @Test("A device has its number")
    func device() throws {
        try withFuse { fuse throws in
            let node = fuse_mknod_in(mode: S_IFCHR | 0o600, rdev: 0x103, umask: 0, padding: 0)
            let entry = try fuse.success(FUSE_MKNOD, 1, bytes(of: node) + text("null")).value(fuse_entry_out.self)
            #expect(entry.attr.rdev == 0x103 && entry.attr.mode & S_IFMT == S_IFCHR)
            #expect(try fuse.lowerStatus("null").st_rdev == 0x103)
        }
    }

    @Test("A name that is there already is EEXIST")
    func exists() throws {
        try withFuse { fuse throws in
            #expect(throws: Errno(rawValue: EEXIST)) { try fuse.mkdir("file") }
            #expect(throws: Errno(rawValue: EEXIST)) { try fuse.create("file", O_RDWR | O_EXCL) }
            // What a symbolic link leads to does not count.
            #expect(try fuse.call(FUSE_SYMLINK, 1, text("file", "elsewhere")).code == EEXIST)
        }
    }

    @Test("A symbolic link keeps its target, whatever it is")
    func symbolicLink() throws {
        try withFuse { fuse throws in
            let target = "../nowhere/\(String(repeating: "x", count: 200))"
            let entry = try fuse.success(FUSE_SYMLINK, 1, text("link", target), as: .stranger)
                .value(fuse_entry_out.self)
            #expect(entry.attr.mode & S_IFMT == S_IFLNK && entry.attr.size == UInt64(target.utf8.count))
            #expect(try fuse.success(FUSE_READLINK, entry.nodeid).payload == Array(target.utf8))
            #expect(try fuse.lowerStatus("link").st_uid == 4321)
            let file = try fuse.lookup("file").nodeid
            #expect(try fuse.call(FUSE_READLINK, file).code != 0)
        }
    }

    @Test("A hard link is the same inode with one more name")
    func link() throws {
        try withFuse { fuse throws in
            let node = try fuse.lookup("file").nodeid
            let body = bytes(of: fuse_link_in(oldnodeid: node)) + text("second")
            let entry = try fuse.success(FUSE_LINK, 1, body).value(fuse_entry_out.self)
            #expect(entry.nodeid == node && entry.attr.nlink == 2)
            #expect(try fuse.lowerStatus("second").st_ino == fuse.lowerStatus("file").st_ino)
            #expect(try fuse.call(FUSE_LINK, 1, body).code == EEXIST)
            #expect(fuse.remote.log.reads.isEmpty)
        }
    }

    @Test("Unlink and rmdir take names of their own kind only")
    func removal() throws {
        try withFuse { fuse throws in
            let folder = try fuse.mkdir("folder").nodeid
            _ = try fuse.mkdir("inside", in: folder)
            #expect(try fuse.call(FUSE_RMDIR, 1, text("folder")).code == ENOTEMPTY)
            #expect(try fuse.call(FUSE_UNLINK, 1, text("folder")).code == EISDIR)
            #expect(try fuse.call(FUSE_RMDIR, 1, text("file")).code == ENOTDIR)
            #expect(try fuse.call(FUSE_UNLINK, 1, text("nothing")).code == ENOENT)
            try fuse.success(FUSE_RMDIR, folder, text("inside"))
            try fuse.success(FUSE_RMDIR, 1, text("folder"))
            #expect(throws: Errno(rawValue: ENOENT)) { try fuse.lowerStatus("folder") }
            try fuse.unlink("file")
            #expect(throws: Errno(rawValue: ENOENT)) { try fuse.lowerStatus("file") }
        }
    }

    @Test("A file without a name lives until the kernel forgets it, and is then ESTALE")
    func nameless() throws {
        try withFuse { fuse throws in
            let node = try fuse.lookup("file").nodeid
            try fuse.unlink("file")
            #expect(try fuse.attributes(node).nlink == 0)
            let opened = try fuse.open(node)
            #expect(try fuse.read(node, opened.fh, 0..<100) == Pattern.bytes(0..<100))
            try fuse.close(node, opened.fh)
            try until("the end of the use") { fuse.fileSystem.inodes.find(node)?.content == nil }
            fuse.forget(node)
            #expect(try fuse.call(FUSE_GETATTR, node, bytes(of: fuse_getattr_in())).code == ESTALE)
        }
    }

    @Test("A rename moves and replaces")
    func rename() throws {
        try withFuse(files: ["file", "other"]) { fuse throws in
            let (node, other) = (try fuse.lookup("file").nodeid, try fuse.lookup("other").nodeid)
            let folder = try fuse.mkdir("folder").nodeid
            try fuse.rename("file", to: "moved", under: folder)
            #expect(throws: Errno(rawValue: ENOENT)) { try fuse.lookup("file") }
            #expect(try fuse.lookup("moved", in: folder).nodeid == node)
            try fuse.rename("moved", in: folder, to: "other")
            #expect(try fuse.lookup("other").nodeid == node)
            #expect(try fuse.attributes(other).nlink == 0)
            // The record has moved with its file.
            #expect(try fuse.record("other")?.object.key.description.contains("file") == true)
            let old = bytes(of: fuse_rename_in(newdir: folder)) + text("other", "again")
            try fuse.success(FUSE_RENAME, 1, old)
            #expect(try fuse.lookup("again", in: folder).nodeid == node)
        }
    }

    @Test("The flags of renameat2(2) hold: without replacing, by exchange, with a whiteout")
    func renameFlags() throws {
        try withFuse(files: ["file", "other"]) { fuse throws in
            let (node, other) = (try fuse.lookup("file").nodeid, try fuse.lookup("other").nodeid)
            let (noReplace, exchange): (UInt32, UInt32) = (1, 2)
            #expect(throws: Errno(rawValue: EEXIST)) { try fuse.rename("file", to: "other", flags: noReplace) }
            #expect(try fuse.lookup("file").nodeid == node)
            try fuse.rename("file", to: "other", flags: exchange)
            #expect(try fuse.lookup("file").nodeid == other && fuse.lookup("other").nodeid == node)
            try fuse.rename("file", to: "moved", flags: PASSHSM_RENAME_WHITEOUT)
            let whiteout = try fuse.lowerStatus("file")
            #expect(whiteout.st_mode & S_IFMT == S_IFCHR && whiteout.st_rdev == 0)
            #expect(throws: Errno(rawValue: EINVAL)) { try fuse.rename("moved", to: "x", flags: 0x100) }
        }
    }

    @Test("CREATE makes a file that is open at once, or opens the one that is there")
    func create() throws {
        try withFuse { fuse throws in
            let made = try fuse.create("new", mode: 0o666, umask: 0o022, as: .stranger)
            let status = try fuse.lowerStatus("new")
            #expect(status.st_mode == S_IFREG | 0o644 && status.st_uid == 4321)
            #expect(made.open.open_flags & PASSHSM_FOPEN_PASSTHROUGH != 0)
            #expect(made.entry.nodeid == (try fuse.lookup("new").nodeid))
            #expect(try fuse.write(made.entry.nodeid, made.open.fh, [7, 8, 9], at: 0) == 3)
            #expect(try fuse.lowerBytes("new") == [7, 8, 9])
            let again = try fuse.create("new", O_RDWR)
            #expect(again.entry.nodeid == made.entry.nodeid && again.open.fh != made.open.fh)
            #expect(try fuse.read(again.entry.nodeid, again.open.fh, 0..<10) == [7, 8, 9])
            for opened in [made, again] { try fuse.close(opened.entry.nodeid, opened.open.fh) }
            _ = try fuse.mkdir("folder")
            #expect(throws: Errno(rawValue: ESTALE)) { try fuse.create("folder", O_RDWR) }
        }
    }

    @Test("TMPFILE makes a file without a name, which LINK can give one")
    func unnamed() throws {
        try withFuse(passthrough: false) { fuse throws in
            let flags = UInt32(bitPattern: O_RDWR | PASSHSM_O_TMPFILE)
            let body = bytes(of: fuse_create_in(flags: flags, mode: 0o640, umask: 0, open_flags: 0))
            let made = try fuse.success(fuse_opcode(UInt32(PASSHSM_FUSE_TMPFILE)), 1, body, as: .stranger)
                .value(passhsm_create_out.self)
            #expect(made.entry.attr.nlink == 0 && made.entry.attr.uid == 4321)
            #expect(made.open.open_flags == UInt32(FOPEN_KEEP_CACHE))
            #expect(try fuse.write(made.entry.nodeid, made.open.fh, [5, 6], at: 0) == 2)
            let link = bytes(of: fuse_link_in(oldnodeid: made.entry.nodeid)) + text("named")
            try fuse.success(FUSE_LINK, 1, link)
            #expect(try fuse.lowerBytes("named") == [5, 6])
            #expect(try fuse.lowerStatus("named").st_mode == S_IFREG | 0o640)
            try fuse.close(made.entry.nodeid, made.open.fh)
        }
    }

    @Test("An entry that the kernel no longer wants is forgotten again")
    func unwanted() throws {
        try withFuse { fuse throws in
            let before = fuse.fileSystem.inodes.count
            fuse.kernel.refuseReplies(true)
            _ = try fuse.lookup("file")
            _ = try fuse.create("new")
            fuse.kernel.refuseReplies(false)
            #expect(fuse.fileSystem.openHandles.load(ordering: .relaxed) == 0)
            // The new file was open for writing until its answer: it is looked at once more.
            try until("the end of the use") {
                fuse.fileSystem.sweep()
                return fuse.fileSystem.inodes.count == before
            }
        }
    }
}
