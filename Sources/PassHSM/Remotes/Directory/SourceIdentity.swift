import Glibc
import HSMCore
import HSMSystem

/// Identifies the file system of a source directory, so that the empty directory that remains while the source is not
/// mounted is not taken for it. It is the same after a reboot; a device number is not, because it depends on the order
/// in which disks are found.
///
/// The id is the file system's own. It is `f_fsid` for ext4, btrfs (per subvolume) and zfs, which derive it from their
/// UUID; otherwise it is the UUID, where the kernel tells it (Linux 6.9). Network file systems, FUSE and tmpfs have no
/// permanent id: they are identified by type and mount point.
package struct SourceIdentity: Hashable, Sendable, CustomStringConvertible {
    /// The type in /proc/self/mountinfo, without the version of a protocol.
    package let type: String
    /// Empty when the file system has no permanent id.
    package let id: String
    /// The mount point of the mount that the top directory is on.
    package let mountpoint: BytePath
    /// Whether the top directory is itself the mount point.
    package let isMountpoint: Bool
}

extension SourceIdentity {
    /// The identity of the directory that `top` is open on; O_PATH is enough.
    package init(of top: Descriptor) throws(Errno) {
        let mount = try Self.mount(of: top)
        let own = try BytePath("/proc/self/fd/\(top.raw)").readLink()
        self.init(
            type: Self.general(mount.type), id: Self.id(of: top), mountpoint: mount.mountpoint,
            isMountpoint: own == mount.mountpoint)
    }

    /// Whether both are the same file system, as far as they tell.
    package func isSame(as other: SourceIdentity) -> Bool {
        // This matters within one file system too: a directory is empty without the mount of a part of it there.
        guard isMountpoint == other.isMountpoint, type == other.type else { return false }
        if !id.isEmpty && !other.id.isEmpty { return id == other.id }
        return mountpoint == other.mountpoint
    }

    package var description: String {
        "\(type)\(id.isEmpty ? "" : " \(id)") \(isMountpoint ? "mounted on" : "below") \(mountpoint)"
    }

    private static func mount(of top: Descriptor) throws(Errno) -> MountEntry {
        let lines = try SmallFile.read(BytePath("/proc/self/fdinfo/\(top.raw)")).split(separator: UInt8(ascii: "\n"))
        let name = Array("mnt_id:".utf8)
        let value = lines.first { $0.starts(with: name) }.map {
            String(decoding: $0.dropFirst(name.count), as: UTF8.self)
        }
        guard let number = value.flatMap({ Int($0.trimmed) }),
            let mount = try MountTable.entries().first(where: { $0.id == number })
        else { throw Errno(rawValue: ENOENT) }
        return mount
    }

    /// The type without its protocol version, which is negotiated at each mount: `nfs4` becomes `nfs`. The names of
    /// cifs are treated alike.
    private static func general(_ type: String) -> String {
        switch type {
        case "nfs4": "nfs"
        case "smb3": "cifs"
        default: type
        }
    }

    private static func id(of top: Descriptor) -> String {
        guard let facts = try? top.fileSystem() else { return "" }
        switch facts.type {
        case 0xef53, 0x9123_683e, 0x2fc1_2fc1:
            return facts.id == 0 ? "" : String(facts.id, radix: 16)
        // Each mount of tmpfs and of overlayfs makes a new id.
        case 0x0102_1994, 0x794c_7630: return ""
        default:
            guard let directory = try? Descriptor.openDirectory(at: top, [0x2e]),
                let uuid = try? directory.fileSystemUUID(), uuid.contains(where: { $0 != 0 })
            else { return "" }
            return uuid.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
        }
    }
}

/// The form in a line of the configuration.
extension SourceIdentity {
    package var text: String {
        "\(type) \(id.isEmpty ? "-" : id) \(isMountpoint ? "top" : "inside") "
            + PercentEncoding.encode(mountpoint.bytes)
    }

    /// Parses a ``text``.
    ///
    /// - Throws: `LocationError` for anything else.
    package init(text: String) throws(LocationError) {
        let parts = text.split(separator: " ").map(String.init)
        guard parts.count == 4, ["top", "inside"].contains(parts[2]), let path = PercentEncoding.decode(parts[3].utf8),
            path.first == UInt8(ascii: "/"), !path.contains(0)
        else { throw LocationError("the recorded file system of the source is malformed: import again with --rebind") }
        self.init(
            type: parts[0], id: parts[1] == "-" ? "" : parts[1], mountpoint: BytePath(path),
            isMountpoint: parts[2] == "top")
    }
}
