import Glibc
import HSMCore

/// The rights that an import takes from a remote: owner, mode, devices, attributes.
///
/// The rights in a directory are copied, because an administrator of this machine set them. A web server or a bucket
/// may be anybody's: it gives permissions and owners. Unless ``trustsRemote``, it grants neither set-user-ID nor
/// set-group-ID, nor root as the owner, nor devices, nor attributes other than `user.*`.
package struct RemoteRights: Sendable, Equatable {
    /// Owner and mode to set on a new name, or on one that exists. Nil fields are left as they are.
    struct Values: Equatable {
        var owner: UInt32?
        var group: UInt32?
        /// Includes set-user-ID, set-group-ID and sticky.
        var mode: mode_t?

        var isEmpty: Bool { self == Values() }
    }

    /// The user's options, which override the remote. Nil fields are not given.
    package struct Given: Sendable, Equatable {
        package var owner: UInt32?
        package var group: UInt32?
        package var fileMode: UInt32?
        package var directoryMode: UInt32?

        package init() {}

        /// These values; where they are nil, those of `other`.
        func over(_ other: Given) -> Given {
            var result = self
            result.owner = owner ?? other.owner
            result.group = group ?? other.group
            result.fileMode = fileMode ?? other.fileMode
            result.directoryMode = directoryMode ?? other.directoryMode
            return result
        }

        func values(isDirectory: Bool) -> Values {
            Values(owner: owner, group: group, mode: isDirectory ? directoryMode : fileMode)
        }
    }

    private static let special: mode_t = 0o6000

    /// The remote is a web server or a bucket.
    let isForeign: Bool
    let trustsRemote: Bool
    private let given: Given
    private let umask: mode_t

    /// - Parameters:
    ///   - given: used for foreign remotes only.
    ///   - umask: for names whose mode a foreign remote does not give.
    init(isForeign: Bool, trustsRemote: Bool, given: Given, umask: mode_t) {
        self.isForeign = isForeign
        self.trustsRemote = trustsRemote
        self.given = isForeign ? given : Given()
        self.umask = umask
    }

    /// The rights of a directory of this machine as the source.
    static let directory = RemoteRights(isForeign: false, trustsRemote: true, given: Given(), umask: 0)

    /// The values for a new name.
    func values(for entry: RemoteEntry) -> Values {
        let metadata = entry.metadata
        let isDirectory = entry.kind == .directory
        guard isForeign else {
            let usual: mode_t = isDirectory ? 0o755 : 0o644
            return Values(owner: metadata.owner, group: metadata.group, mode: metadata.permissions ?? usual)
        }
        let owner = named(metadata.owner), group = named(metadata.group)
        let told = given.values(isDirectory: isDirectory)
        var mode = ((isDirectory ? 0o777 : 0o666) as mode_t) & ~umask
        if let permissions = metadata.permissions {
            mode = permissions & 0o1777
            // A remote can lend the rights only of an owner or group that it names.
            if trustsRemote && told.owner == nil && owner != nil { mode |= permissions & 0o4000 }
            if trustsRemote && told.group == nil && group != nil { mode |= permissions & 0o2000 }
        }
        return Values(owner: told.owner ?? owner, group: told.group ?? group, mode: told.mode ?? mode)
    }

    /// The values for a file that replaces one with this status: its rights are local by now.
    func values(replacing old: stat, _ entry: RemoteEntry) -> Values {
        let told = given.values(isDirectory: false)
        // The content changes, so set-user-ID and set-group-ID go, as with a write.
        return Values(
            owner: told.owner ?? old.st_uid, group: told.group ?? old.st_gid,
            mode: told.mode ?? old.st_mode & (0o7777 & ~Self.special))
    }

    private func named(_ user: UInt32?) -> UInt32? {
        // The highest number means “unchanged” to chown(2).
        user.flatMap { $0 == .max || $0 == 0 && !trustsRemote ? nil : $0 }
    }

    /// The entry's rights that are not taken over, for a report; nil when all are.
    func withheld(from entry: RemoteEntry) -> String? {
        guard isForeign, case .file = entry.kind, let told = entry.metadata.permissions,
            let mode = values(for: entry).mode
        else { return nil }
        guard told & Self.special & ~mode != 0 else { return nil }
        return "mode \(String(told, radix: 8)): set-user-ID and set-group-ID are not taken from "
            + (trustsRemote ? "a remote that does not name the owner" : "a remote; see --trust-remote-rights")
    }

    /// Whether a name of this kind may be made.
    func admits(_ kind: RemoteEntry.Kind) -> Bool {
        switch kind {
        case .characterDevice, .blockDevice: !isForeign || trustsRemote
        case .file, .directory, .symlink, .fifo, .socket: true
        }
    }

    /// The attributes that are taken over. Attributes outside `user.*` grant rights.
    func attributes(of entry: RemoteEntry) -> [(name: [UInt8], value: [UInt8])] {
        guard isForeign && !trustsRemote else { return entry.metadata.attributes }
        return entry.metadata.attributes.filter { $0.name.starts(with: "user.".utf8) }
    }
}

extension RemoteRights {
    /// The mount setting that says whether the remote is trusted: `yes` or `no`.
    package static let trustSetting = "trust-remote-rights"

    /// - Throws: where they say neither.
    static func trustsRemote(by settings: [String: String]) throws(ImportError) -> Bool {
        switch settings[trustSetting] {
        case "yes": true
        case "no", nil: false
        case .some(let text):
            throw ImportError("the recorded setting \(trustSetting)=\(text): choose yes or no (see .passhsm/config)")
        }
    }
}

extension RemoteRights.Given {
    /// The number of a user or a group, from text.
    package static func number(_ text: String) throws(ImportError) -> UInt32 {
        guard let number = UInt32(digits: text), number != .max else {
            throw ImportError("it is not the number of a user or a group")
        }
        return number
    }

    /// The mode of files, from octal digits.
    package static func fileMode(_ text: String) throws(ImportError) -> UInt32 { try mode(text, limit: 0o1777) }

    /// The mode of directories, which may hand their group on, from octal digits.
    package static func directoryMode(_ text: String) throws(ImportError) -> UInt32 { try mode(text, limit: 0o3777) }

    private static func mode(_ text: String, limit: UInt32) throws(ImportError) -> UInt32 {
        guard let mode = UInt32(digits: text, radix: 8), mode <= limit else {
            throw ImportError("it is not octal digits up to \(String(limit, radix: 8)), such as 0640")
        }
        return mode
    }

    /// Reads the configuration.
    ///
    /// - Throws: for a name or a value that is not known: it could be the one that matters.
    init(recorded: [String: String]) throws(ImportError) {
        for (name, text) in recorded.sorted(by: { $0.key < $1.key }) {
            do throws(ImportError) {
                switch name {
                case "uid": owner = try Self.number(text)
                case "gid": group = try Self.number(text)
                case "file-mode": fileMode = try Self.fileMode(text)
                case "dir-mode": directoryMode = try Self.directoryMode(text)
                default: throw ImportError("this version has no such option")
                }
            } catch { throw ImportError("the recorded setting \(name)=\(text): \(error) (see .passhsm/config)") }
        }
    }

    var recorded: [String: String] {
        let all = [
            ("uid", owner.map { "\($0)" }), ("gid", group.map { "\($0)" }),
            ("file-mode", fileMode.map { String($0, radix: 8) }),
            ("dir-mode", directoryMode.map { String($0, radix: 8) }),
        ]
        return Dictionary(uniqueKeysWithValues: all.compactMap { name, value in value.map { (name, $0) } })
    }
}
