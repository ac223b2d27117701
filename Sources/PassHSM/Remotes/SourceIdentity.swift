import Glibc
import HSMCore
import HSMSystem

/// What tells the file system of a source directory from the one that is there while the source is not mounted, also after
/// a reboot: no device number, which changes with the order in which disks are found.
///
/// An id is the file system's own: `f_fsid` of ext4, btrfs (of the subvolume) and zfs, which make it of their UUID, else the
/// UUID, where the kernel tells it (Linux 6.9). Network file systems, FUSE and tmpfs have none that lasts; these are known by their type and by where they are mounted.
package struct SourceIdentity: Hashable, Sendable, CustomStringConvertible {
    /// As /proc/self/mountinfo has it, without the version of a protocol.
    package let type: String
    /// Empty: the file system has none that lasts.
    package let id: String
    /// Of the mount that the top directory is on.
    package let mountpoint: BytePath
    /// The top directory is what is mounted there.
    package let isMountpoint: Bool

    init(type: String, id: String, mountpoint: BytePath, isMountpoint: Bool) {
        self.type = type
        self.id = id
        self.mountpoint = mountpoint
        self.isMountpoint = isMountpoint
    }

    /// That of the directory that `top` is open on; O_PATH will do.
    package init(of top: Descriptor) throws(Errno) {
        let mount = try Self.mount(of: top)
        let own = try BytePath("/proc/self/fd/\(top.raw)").readLink()
        self.init(
            type: Self.general(mount.type), id: Self.id(of: top), mountpoint: mount.mountpoint,
            isMountpoint: own == mount.mountpoint)
    }

    /// Whether both are one file system, as far as they tell.
    package func isSame(as other: SourceIdentity) -> Bool {
        // Also on one file system, of which a part is mounted elsewhere: its directory is empty without that mount.
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

    /// `nfs4` is `nfs`, whatever version was agreed on this time; so are the names of cifs.
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
        // Made anew by each mount of tmpfs, and of overlayfs.
        case 0x0102_1994, 0x794c_7630: return ""
        default:
            guard let directory = try? Descriptor.openDirectory(at: top, [0x2e]),
                let uuid = try? directory.fileSystemUUID(), uuid.contains(where: { $0 != 0 })
            else { return "" }
            return uuid.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
        }
    }
}

/// As a line of the configuration has it.
extension SourceIdentity {
    package var text: String {
        "\(type) \(id.isEmpty ? "-" : id) \(isMountpoint ? "top" : "inside") "
            + PercentEncoding.encode(mountpoint.bytes)
    }

    /// - Throws: `LocationError` for anything but a ``text``.
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
