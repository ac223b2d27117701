import CLinux
import Glibc
import HSMCore
import HSMFiles
import HSMStore
import HSMSystem
import Logging
import Synchronization

/// A mounted mirror: the front end that uses pre-content events, over a store and an engine, from the mount to its end.
package final class FanotifyMount: Sendable {
    package struct Options: Sendable {
        package var fill = FillPolicy.auto
        /// Users see a file's remote content only after all of it was compared with its digest.
        package var isStrict = false
        /// Complete files raise events too, to measure the cost of that.
        package var ignoresNothing = false
        /// Set-user-ID files and devices have no effect, also where they would in the lower directory. A mount that is
        /// taken over stays as it is.
        package var withholdsRights = false
        /// Seconds that accesses wait for a new daemon when this one dies.
        package var takeoverSeconds = 30.0

        package init() {}
    }

    /// For `status`.
    package struct Status: Sendable {
        package var events: [(name: String, value: Int)]
        package var knownFiles: Int
        package var incompleteFiles: Int
        package var scope: String
    }

    private let store: Store
    private let engine: FillEngine
    private let log: Logger
    private let mountpoint: BytePath
    private let options: Options
    private let session: FanotifySession
    private let handler: EventHandler
    private let reader: EventReader
    private let isStopping = Atomic<Bool>(false)
    private let isAborted = Atomic<Bool>(false)
    private let isDone = Atomic<Bool>(false)

    /// - Parameters:
    ///   - session: new, or taken over from a daemon that died. `store` was opened with its
    ///     ``FanotifySession/prepare(_:)``.
    ///   - pool: runs what may block.
    package init(
        session: FanotifySession, store: Store, engine: FillEngine, mountpoint: BytePath, options: Options,
        pool: BlockingPool, log: Logger
    ) {
        self.store = store
        self.engine = engine
        self.mountpoint = mountpoint
        self.options = options
        self.session = session
        self.log = log
        store.letUsersReachLower()
        handler = EventHandler(
            store: store, engine: engine, group: session.group, options: options, pool: pool, log: log)
        reader = EventReader(link: session.link, handler: handler, log: log)
    }

    /// Mounts, unless the mount was taken over, and returns when events are answered. The returned line says how far
    /// the marks reach.
    package func start() throws(Errno) -> String {
        // Without the committer, fills could not be made durable.
        try store.startCommitting()
        // From here on no waiting access is let through, whatever becomes of this process.
        try startThread(name: "tick") { [self] in tick() }
        try startThread(name: "deadlines") { [self] in watchDeadlines() }
        let inherited = session.takeInherited()
        for event in inherited { handler.handleInherited(event) }
        // A new event could get the number of an inherited event without a placeholder. These end with their fills.
        while inherited.contains(where: { !$0.holdsNumber && !$0.hasEnded }) { usleep(1000) }
        try reader.start()
        if !session.isInherited { try session.mount(at: mountpoint, withholdsRights: options.withholdsRights) }
        return session.isInherited ? "taken over; \(session.scope)" : session.scope
    }

    /// Looks after the known files once a second.
    private func tick() {
        while !isDone.load(ordering: .acquiring) {
            sleep(1)
            handler.sweep()
        }
    }

    /// Enforces the fills' deadlines once a second, on a thread that waits for no file.
    private func watchDeadlines() {
        while !isDone.load(ordering: .acquiring) {
            sleep(1)
            engine.expire()
        }
    }

    /// Returns when the mount is gone, no matter how it was unmounted.
    package func waitForUnmount() {
        let table = try? Descriptor.open("/proc/self/mountinfo", O_RDONLY)
        // After a change of the mount table the mount may be gone in a moment. A mount that was detached ends without
        // such a change.
        var hastyUntil = ContinuousClock.now
        while !isAborted.load(ordering: .acquiring) {
            let (hasMount, pause) = session.group.look(for: session.mount.mountID)
            if !hasMount { break }
            let next = ContinuousClock.now + max(pause, .milliseconds(500))
            repeat {
                if .now < hastyUntil {
                    usleep(20_000)
                    break
                }
                if (try? table?.wait(for: Int16(POLLPRI), until: Deadline(seconds: 0.5))) == true {
                    hastyUntil = .now + .seconds(1)
                    break
                }
                if table == nil { usleep(500_000) }
            } while !isAborted.load(ordering: .acquiring) && .now < next
        }
    }

    /// After ``waitForUnmount()``: returns when everything is on disk.
    package func finish() {
        isDone.store(true, ordering: .releasing)
        engine.shutDown()
        handler.sweep()
        store.drain()
        store.noteEnd()
        session.end()
        log.info("unmounted")
    }

    /// Fails every request that waits for a fill, now and for five seconds. The callers then close their files, and the
    /// mount can be unmounted.
    package func drain() { engine.refuse(for: .seconds(5)) }

    /// Ends the mount: answers every waiting access and detaches the mount. For files that are still open, the guardian
    /// denies missing content. Returns when ``waitForUnmount()`` can return.
    package func stop() {
        if isStopping.exchange(true, ordering: .acquiringAndReleasing) { return }
        engine.shutDown()
        try? MountTable.unmount(mountpoint, lazily: true)
        let deadline = Deadline(seconds: Self.closeTimeout)
        while session.group.hasMount(session.mount.mountID) {
            if deadline.hasPassed {
                log.warning("files are still open; reads of their missing content fail from now on")
                return isAborted.store(true, ordering: .releasing)
            }
            usleep(10_000)
        }
    }

    /// Seconds that users get to close their files.
    private static let closeTimeout = 2.0

    package var status: Status {
        Status(
            events: session.link.counters.snapshot, knownFiles: handler.tracked.count,
            incompleteFiles: handler.tracked.all { $0.content != nil }.count, scope: session.scope)
    }
}

/// Work on files that the control socket asks for. Each call takes a descriptor (O_PATH) of a file in the lower tree,
/// and may block for as long as the remote does.
extension FanotifyMount {
    /// The directory that clients' paths start from.
    package var top: Descriptor { store.tree.root }

    /// Returns the recorded state of a file.
    package func state(of file: Descriptor) throws(Errno) -> StoredState { try store.describe(file) }

    /// Makes a file offline when the remote still has it. Returns the number of bytes that were freed.
    ///
    /// - Parameter goesOn: asked about five times a second; false gives up.
    package func release(_ file: Descriptor, _ goesOn: () -> Bool) throws(Refusal) -> Int {
        try handler.files.release(file, while: goesOn)
    }

    /// Fills a file whole. Every other user of the remote goes first.
    ///
    /// - Parameter progress: gets the number of bytes that became present or were so already; false gives up.
    package func recall(_ file: Descriptor, _ progress: (Int) -> Bool) async throws(Refusal) {
        try await handler.files.recall(file, progress)
    }

    /// Forbids the release of a file, or allows it again.
    package func setPinned(_ isPinned: Bool, _ file: Descriptor) throws(Refusal) {
        try handler.files.setPinned(isPinned, file)
    }
}
