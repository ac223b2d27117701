import CLinux
import Glibc

/// One line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
package struct MountEntry: Sendable, Equatable {
    /// The id that /proc/PID/fdinfo shows. After the mount is gone, another mount may get it.
    package var id: Int
    /// The device number of the file system, `major:minor`, as sysfs names it.
    package var device: String
    package var mountpoint: BytePath
    /// The file system type, such as `ext4`, or `fuse` with its subtype after a dot.
    package var type: String
    package var source: BytePath
    /// The directory of the file system that is the top of the mount: `/`, except for bind mounts of a part.
    package var root: BytePath
    /// The user who mounted it; known for FUSE mounts only.
    package var owner: UInt32?

    package init(
        id: Int, device: String, mountpoint: BytePath, type: String, source: BytePath, root: BytePath = BytePath("/"),
        owner: UInt32? = nil
    ) {
        self.id = id
        self.owner = owner
        self.device = device
        self.mountpoint = mountpoint
        self.type = type
        self.source = source
        self.root = root
    }
}

extension MountEntry {
    /// The file system type of this program's FUSE mounts.
    package static let fuseType = "fuse.passhsm"

    /// Whether this program shows a tree here: its FUSE mount, or a mount of a lower directory's tree, as fanotify's
    /// are.
    package var showsTree: Bool {
        type == Self.fuseType || root.components.suffix(2).elementsEqual([Array(".passhsm".utf8), Array("tree".utf8)])
    }
}

/// The mounts that this process sees. Reads the kernel's list and touches no mount.
package enum MountTable {
    package static func entries() throws(Errno) -> [MountEntry] {
        parse(try SmallFile.read(BytePath("/proc/self/mountinfo"), limit: 64 << 20))
    }

    /// The mounts that another process sees, with their paths as that process sees them.
    package static func entries(of process: Int32) throws(Errno) -> [MountEntry] {
        parse(try SmallFile.read(BytePath("/proc/\(process)/mountinfo"), limit: 64 << 20))
    }

    /// The topmost mount at exactly `mountpoint`.
    package static func entry(at mountpoint: BytePath) throws(Errno) -> MountEntry? {
        try entries().last { $0.mountpoint == mountpoint }
    }

    /// Parses the content of a mountinfo file. Lines in another form are skipped.
    package static func parse(_ content: [UInt8]) -> [MountEntry] {
        content.split(separator: UInt8(ascii: "\n")).compactMap { line in
            let fields = line.split(separator: UInt8(ascii: " "))
            // Optional fields come between the sixth field and a lone hyphen.
            guard let hyphen = fields.dropFirst(6).firstIndex(where: { $0.elementsEqual("-".utf8) }),
                fields.count > hyphen + 2, let id = Int(String(decoding: fields[0], as: UTF8.self))
            else { return nil }
            return MountEntry(
                id: id, device: String(decoding: fields[2], as: UTF8.self), mountpoint: BytePath(unescape(fields[4])),
                type: String(decoding: fields[hyphen + 1], as: UTF8.self),
                source: BytePath(unescape(fields[hyphen + 2])), root: BytePath(unescape(fields[3])),
                owner: fields[(hyphen + 3)...].first.flatMap(owner))
        }
    }

    /// The value of FUSE's option `user_id`.
    private static func owner(_ options: ArraySlice<UInt8>) -> UInt32? {
        let option = options.split(separator: UInt8(ascii: ",")).first { $0.starts(with: "user_id=".utf8) }
        return option.flatMap { UInt32(String(decoding: $0.dropFirst("user_id=".utf8.count), as: UTF8.self)) }
    }

    /// Decodes space, tab, newline and backslash, which the kernel writes as three octal digits.
    private static func unescape(_ field: ArraySlice<UInt8>) -> [UInt8] {
        var result = [UInt8]()
        var rest = field
        while let byte = rest.popFirst() {
            let digits = rest.prefix(3)
            if byte == UInt8(ascii: "\\"), digits.count == 3,
                let value = UInt8(String(decoding: digits, as: UTF8.self), radix: 8)
            {
                result.append(value)
                rest = rest.dropFirst(3)
            } else {
                result.append(byte)
            }
        }
        return result
    }

    /// statmount(2): whether the mount with this unique id is attached where this process sees it. False also where the
    /// kernel does not tell.
    package static func isAttached(_ mount: UInt64) -> Bool { passhsm_is_attached(mount) != 0 }

    /// umount2(2), which does not follow a symlink at the end of the path. `lazily` detaches the mount now, even while
    /// it is in use.
    package static func unmount(_ mountpoint: BytePath, lazily: Bool = false) throws(Errno) {
        try mountpoint.withCString { path throws(Errno) in
            let flags = PASSHSM_UMOUNT_NOFOLLOW | (lazily ? PASSHSM_MNT_DETACH : 0)
            _ = try check { passhsm_umount(path, flags) }
        }
    }
}

extension Descriptor {
    /// statx(2): the unique id of this descriptor's mount, which is not used again before the next boot (Linux 6.8); 0
    /// where it is not known.
    package var uniqueMountID: UInt64 { passhsm_unique_mount_id(raw) }
}
