import CLinux
import Glibc

/// One line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
package struct MountEntry: Sendable, Equatable {
    /// As /proc/PID/fdinfo names it; another mount may have it when this one is gone.
    package var id: Int
    /// Of the file system, `major:minor`, as sysfs names it.
    package var device: String
    package var mountpoint: BytePath
    /// `fuse` with its subtype after a dot, `ext4` ...
    package var type: String
    package var source: BytePath
    /// What of the file system is the top of the mount: `/` but for bind mounts of a part.
    package var root: BytePath
    /// The user who mounted it; told of FUSE mounts only.
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

    /// Whether it is a mount of this program's: by FUSE, or of a tree itself, as fanotify's are.
    package var showsTree: Bool {
        type == Self.fuseType || root.components.suffix(2).elementsEqual([Array(".passhsm".utf8), Array("tree".utf8)])
    }
}

/// The mounts that this process sees. Read from the kernel's list; no mount is touched.
package enum MountTable {
    package static func entries() throws(Errno) -> [MountEntry] {
        parse(try SmallFile.read(BytePath("/proc/self/mountinfo"), limit: 64 << 20))
    }

    /// The mounts that another process sees, by the paths that it knows them by.
    package static func entries(of process: Int32) throws(Errno) -> [MountEntry] {
        parse(try SmallFile.read(BytePath("/proc/\(process)/mountinfo"), limit: 64 << 20))
    }

    /// The topmost mount at exactly `mountpoint`.
    package static func entry(at mountpoint: BytePath) throws(Errno) -> MountEntry? {
        try entries().last { $0.mountpoint == mountpoint }
    }

    package static func parse(_ content: [UInt8]) -> [MountEntry] {
        content.split(separator: UInt8(ascii: "\n")).compactMap { line in
            let fields = line.split(separator: UInt8(ascii: " "))
            // Optional fields stand between the sixth and a lone hyphen.
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

    /// FUSE's option `user_id`.
    private static func owner(_ options: ArraySlice<UInt8>) -> UInt32? {
        let option = options.split(separator: UInt8(ascii: ",")).first { $0.starts(with: "user_id=".utf8) }
        return option.flatMap { UInt32(String(decoding: $0.dropFirst("user_id=".utf8.count), as: UTF8.self)) }
    }

    /// Space, tab, newline and backslash are written as three octal digits.
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

    /// statmount(2): the mount of this unique id is attached where this process sees it. False also where that cannot be told.
    package static func isAttached(_ mount: UInt64) -> Bool { passhsm_is_attached(mount) != 0 }

    /// umount2(2); never follows a symlink in the last component. `lazily` detaches it now, whoever uses it.
    package static func unmount(_ mountpoint: BytePath, lazily: Bool = false) throws(Errno) {
        try mountpoint.withCString { path throws(Errno) in
            let flags = PASSHSM_UMOUNT_NOFOLLOW | (lazily ? PASSHSM_MNT_DETACH : 0)
            _ = try check { passhsm_umount(path, flags) }
        }
    }
}

extension Descriptor {
    /// statx(2): the id of the mount that this is on, which is not used again before the next boot (Linux 6.8); 0 where it is
    /// not known.
    package var uniqueMountID: UInt64 { passhsm_unique_mount_id(raw) }
}
