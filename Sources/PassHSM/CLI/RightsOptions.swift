import ArgumentParser
import Glibc
import HSMControl
import HSMImport
import HSMRemotes

/// The options for owners and modes of the files of a web server or a bucket.
struct RightsOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp("The owner of all names, in place of the remote's.", valueName: "number"),
        transform: RemoteRights.Given.number)
    var uid: UInt32?

    @Option(
        help: ArgumentHelp("The group of all names, in place of the remote's.", valueName: "number"),
        transform: RemoteRights.Given.number)
    var gid: UInt32?

    @Option(
        help: ArgumentHelp("The mode of all files, in place of the remote's.", valueName: "octal"),
        transform: RemoteRights.Given.fileMode)
    var fileMode: UInt32?

    @Option(
        help: ArgumentHelp("The mode of all directories, in place of the remote's.", valueName: "octal"),
        transform: RemoteRights.Given.directoryMode)
    var dirMode: UInt32?

    /// - Throws: `CommandError` when they are given for a directory, or only root may do what they ask.
    func given(for location: RemoteLocation) throws -> RemoteRights.Given {
        var given = RemoteRights.Given()
        given.owner = uid
        given.group = gid
        given.fileMode = fileMode
        given.directoryMode = dirMode
        if !location.address.isForeign && given != .init() {
            throw CommandError(
                "--uid, --gid, --file-mode and --dir-mode are for web servers and buckets; a directory's own are copied"
            )
        }
        if OwnProcess.user != 0, uid ?? OwnProcess.user != OwnProcess.user {
            throw CommandError("--uid: only root can give files to another user")
        }
        return given
    }
}
