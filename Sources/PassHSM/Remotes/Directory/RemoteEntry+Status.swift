import Glibc
import HSMCore
import HSMSystem

extension RemoteEntry.Time {
    package init(_ time: timespec) { self.init(seconds: time.tv_sec, nanoseconds: time.tv_nsec) }
}

extension RemoteEntry.Metadata {
    /// The metadata that stat(2) tells, without extended attributes.
    init(_ status: stat) {
        self.init()
        permissions = status.st_mode & 0o7777
        owner = status.st_uid
        group = status.st_gid
        accessTime = .init(status.st_atim)
        modificationTime = .init(status.st_mtim)
    }

    /// Adds the extended attributes that belong to the file's user: `user.*`, POSIX ACLs and `security.capability`, but
    /// not the records of a lower directory.
    ///
    /// - Throws: errors of lgetxattr(2), except on file systems without attributes, and for attributes and names that
    ///   were removed meanwhile.
    package mutating func readAttributes(of name: [UInt8], in directory: Descriptor) throws(Errno) {
        attributes = try directory.withProcPath(of: name) { path throws(Errno) in
            var attributes: [RemoteEntry.Attribute] = []
            let list: [UInt8]
            do throws(Errno) { list = try ExtendedAttributes.list(of: path) } catch {
                if Self.meansNone(error) { return [] }
                throw error
            }
            for attribute in ExtendedAttributes.names(in: list) where Self.isKept(attribute.dropLast()) {
                do throws(Errno) {
                    let value = try withName(attribute) { text throws(Errno) in
                        try ExtendedAttributes.value(text, of: path)
                    }
                    attributes.append((Array(attribute.dropLast()), value))
                } catch {
                    if !Self.meansNone(error) { throw error }
                }
            }
            return attributes
        }
    }

    /// The digest that the attributes record; nil when they record none.
    var digest: RemoteDigest? {
        guard let modificationTime else { return nil }
        return RemoteDigest(modified: modificationTime) { name in
            attributes.first { $0.name.elementsEqual(name.utf8) }?.value
        }
    }

    private static func meansNone(_ error: Errno) -> Bool {
        [EOPNOTSUPP, ENODATA, ENOENT, ENOSYS].contains(error.rawValue)
    }

    private static let kept = [
        "system.posix_acl_access", "system.posix_acl_default", "security.capability",
    ].map { Array($0.utf8) }

    private static func isKept(_ name: some Collection<UInt8>) -> Bool {
        if name.elementsEqual("user.passhsm".utf8) { return false }
        return name.starts(with: "user.".utf8) || kept.contains { name.elementsEqual($0) }
    }
}

extension RemoteDigest {
    /// The digest that shatag(1) or cshatag(1) has recorded for a file, together with the modification time of that
    /// moment. Nil when the file was modified since.
    ///
    /// - Parameter attribute: returns the value of an extended attribute.
    init?(modified: RemoteEntry.Time, attribute: (_ name: String) -> [UInt8]?) {
        let digits = String(modified.nanoseconds)
        let fraction = String(repeating: "0", count: max(0, 9 - digits.count)) + digits
        guard let noted = attribute("user.shatag.ts"), let text = attribute("user.shatag.sha256"),
            noted.elementsEqual("\(modified.seconds).\(fraction)".utf8)
        else { return nil }
        self.init(.sha256, hexadecimal: text)
    }
}
