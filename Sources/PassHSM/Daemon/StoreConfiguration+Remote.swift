import HSMCore
import HSMRemotes
import HSMStore

extension StoreConfiguration {
    /// Opens the remote tier that the lower directory was imported from. It may be away.
    package func openRemote() throws(LocationError) -> any RemoteStore {
        var access = RemoteAccess()
        access.authorities = authorities
        access.isComplete = isSourceComplete
        access.mayBeAway = true
        access.fileSystem = sourceFileSystem
        return try RemoteLocation(source).open(access)
    }
}
