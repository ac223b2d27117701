import HSMStore
import HSMSystem

/// A front end, as ``ManagedFiles`` sees it. It reaches files, and reacts when their state changes.
///
/// Files decides everything that holds for a file under both front ends. An observer translates: FUSE drops pages and
/// counts descriptors, fanotify sets and clears marks.
package protocol FileObserver: AnyObject, Sendable {
    associatedtype File: ManagedFile
    /// The user for whom a file becomes active.
    associatedtype User: Sendable
    /// The share that the descriptor of an active file is counted in.
    associatedtype Share: Sendable

    // MARK: Reaching files

    /// The file of a handle; nil when it is not known.
    func find(_ handle: FileHandle) -> File?

    /// Holds the file that `place` is open on (O_PATH) until ``drop(_:)``; nil when it is not a regular file.
    func hold(_ place: Descriptor) throws(Errno) -> File?

    /// Ends what ``hold(_:)`` began.
    func drop(_ file: File)

    /// Opens the lower file. - Throws: ESTALE when it is gone.
    func open(_ file: File, _ flags: Int32) throws(Errno) -> Descriptor

    // MARK: Under the transition lock

    /// The file is about to become active, with `lower`, for `user` or for the daemon's own work.
    func willActivate(_ file: File, _ lower: Descriptor, for user: User?) throws(Errno) -> Share

    func didActivate(_ file: File, _ share: Share)

    /// - Parameter isFinished: the record says, durably, that the file is complete.
    func didDeactivate(_ file: File, _ content: IncompleteFile, isFinished: Bool)

    /// The content of a complete file is about to be given up.
    func willRelease(_ file: File, _ lower: Descriptor) throws(Errno)

    /// The content is now another version's: no byte of the version before may be shown.
    func didRefetch(_ file: File)

    /// A file that was opened for writing and is closed stays dirty: it was written.
    func didStayDirty(_ file: File, _ lower: Descriptor)

    // MARK: Without a lock

    /// The pages that readers may have in memory are gone or outdated. May wait for readers.
    func forgetPages(of file: File)

    /// The file may be unused now: the front end can forget it.
    func noLongerUsed(_ file: File)
}
