import Glibc
import HSMCore

/// The files of the source with several names, as far as the listing has met them.
struct LinkRegistry {
    /// The place of such a file in the lower tree.
    struct LinkedFile {
        let path: [UInt8]
        let inode: ino_t
    }

    /// A file whose recorded name is not the name by which it was met.
    struct Orphan {
        let path: [UInt8]
        let recordedKey: RemoteKey
    }

    var files: [[UInt64]: LinkedFile] = [:]
    /// Files whose recorded name was not met yet.
    var orphans: [[UInt64]: Orphan] = [:]
    /// Lower files of which this import removed a name.
    var severed: Set<ino_t> = []
    /// Names that the source does not have, of files that are recorded under another name.
    var strays: [LinkedFile] = []
    /// Directories that are gone in the source, and were not empty when the walk left them.
    var fullDirectories: Set<[UInt8]> = []
}
