import HSMStore
import HSMSystem

/// A front end, as ``ManagedFiles`` sees it: how it reaches its files, and what it does when something becomes of them.
///
/// Everything that is true of a file under both front ends is decided in Files. An observer translates: FUSE drops pages and
/// counts descriptors, fanotify sets and clears marks.
package protocol FileObserver: AnyObject, Sendable {
    associatedtype File: ManagedFile
    /// Somebody for whom a file becomes active.
    associatedtype User: Sendable
    /// What the descriptor of an active file is counted as.
    associatedtype Share: Sendable

    // MARK: Reaching files

    /// The known file of a handle.
    func find(_ handle: FileHandle) -> File?

    /// The file that `place` is open on (O_PATH), known until ``drop(_:)``; nil when it is not a regular one.
    func hold(_ place: Descriptor) throws(Errno) -> File?

    /// Ends what ``hold(_:)`` began.
    func drop(_ file: File)

    /// Opens the lower file. - Throws: ESTALE when it is gone.
    func open(_ file: File, _ flags: Int32) throws(Errno) -> Descriptor

    // MARK: Under the transition lock

    /// The file is about to become active, with `lower`, for `user` or for the daemon's own work.
    func willActivate(_ file: File, _ lower: Descriptor, for user: User?) throws(Errno) -> Share

    func didActivate(_ file: File, _ share: Share)

    /// - Parameter isFinished: the file is complete, by its record.
    func didDeactivate(_ file: File, _ content: IncompleteFile, isFinished: Bool)

    /// The content of a complete file is about to be given up.
    func willRelease(_ file: File, _ lower: Descriptor) throws(Errno)

    /// The content is another version's: nothing of the one before may be shown.
    func didRefetch(_ file: File)

    /// A file that was opened for writing, and is closed, was written.
    func didStayDirty(_ file: File, _ lower: Descriptor)

    // MARK: Without a lock

    /// The content that a reader may have before him in memory is gone, or another one's. May wait for readers.
    func forgetPages(of file: File)

    /// The file may be no longer needed: nothing has to be known of it then.
    func noLongerUsed(_ file: File)
}
