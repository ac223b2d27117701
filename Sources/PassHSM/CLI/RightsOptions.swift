import ArgumentParser
import Glibc
import HSMControl
import HSMImport
import HSMRemotes

/// Owners and modes of what a web server or a bucket has.
struct RightsOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The owner of everything, whatever the remote says.", valueName: "number"))
    var uid: UInt32?

    @Option(help: ArgumentHelp("The group of everything, whatever the remote says.", valueName: "number"))
    var gid: UInt32?

    @Option(help: ArgumentHelp("The mode of all files, whatever the remote says.", valueName: "octal"))
    var fileMode: String?

    @Option(help: ArgumentHelp("The mode of all directories, whatever the remote says.", valueName: "octal"))
    var dirMode: String?

    func validate() throws {
        guard uid != .max, gid != .max else { throw ValidationError("\(UInt32.max) is no user and no group") }
        _ = try Self.mode("--file-mode", fileMode, limit: 0o1777)
        // Directories may hand their group on.
        _ = try Self.mode("--dir-mode", dirMode, limit: 0o3777)
    }

    private static func mode(_ option: String, _ text: String?, limit: UInt32) throws -> UInt32? {
        guard let text else { return nil }
        guard text.utf8.allSatisfy({ (0x30...0x37).contains($0) }), let mode = UInt32(text, radix: 8), mode <= limit
        else { throw ValidationError("\(option) is octal digits up to \(String(limit, radix: 8)), such as 0640") }
        return mode
    }

    /// - Throws: where they are given for a directory, and for what only root may do.
    func given(for location: RemoteLocation) throws -> RemoteRights.Given {
        var given = RemoteRights.Given()
        given.owner = uid
        given.group = gid
        given.fileMode = try Self.mode("--file-mode", fileMode, limit: 0o1777)
        given.directoryMode = try Self.mode("--dir-mode", dirMode, limit: 0o3777)
        if location.path != nil && given != .init() {
            throw CommandError(
                "--uid, --gid, --file-mode and --dir-mode are for web servers and buckets: a directory's rights are copied"
            )
        }
        if OwnProcess.user != 0, uid ?? OwnProcess.user != OwnProcess.user {
            throw CommandError("--uid: only root can give files away")
        }
        return given
    }
}
