import CFuse
import CLinux
import Glibc
import HSMCore
import HSMStore
import HSMSystem
import Logging
import Synchronization

/// A mounted mirror: the FUSE front end over a store and an engine, from the mount to its end.
package final class FuseMount: Sendable {
    /// How long the kernel believes names and attributes.
    package enum Cache: String, Sendable, CaseIterable {
        /// Others change the lower directory too: what they do shows within a second.
        case shared
        /// Nobody else reaches the lower directory.
        case exclusive
        /// Nothing is believed.
        case none

        /// Seconds.
        var timeout: Double {
            switch self {
            case .shared: 1
            case .exclusive: 86400
            case .none: 0
            }
        }
    }

    /// What becomes of a clean incomplete file whose remote copy has changed.
    package enum OnChange: String, Sendable, CaseIterable {
        /// What is present stays, what is absent answers EIO.
        case error
        /// It is taken to the new version when it is opened, and nobody has it open.
        case refetch
    }

    package struct Options: Sendable {
        package var fill = FillPolicy.auto
        package var onChange = OnChange.error
        /// Nothing of a remote's content is seen before all of it was compared with its digest.
        package var isStrict = false
        package var cache = Cache.shared
        package var allowsPassthrough = true
        /// Set-user-ID files and devices do nothing, also where they would in the lower directory.
        package var withholdsRights = false
        /// Makes of a file's state what the attribute `passhsm.state` answers.
        package var describe: @Sendable (StoredState) -> [UInt8] = { _ in [] }

        package init() {}
    }

    /// For `status`.
    package struct Status: Sendable {
        package var isPassthrough: Bool
        package var passthroughReason: String
        package var requests: [(name: String, value: Int)]
        package var knownInodes: Int
        package var openHandles: Int
        package var backingIDs: Int
        package var incompleteFiles: Int
    }

    private let store: Store
    private let engine: FillEngine
    private let log: Logger
    let fileSystem: FileSystem
    let session: FuseSession
    private let passthrough = Mutex(FuseSession.Passthrough(isOn: false, reason: "not mounted"))
    private let isStopping = Atomic<Bool>(false)
    private let isDone = Atomic<Bool>(false)
    private let source: BytePath
    private let mountpoint: [CChar]

    /// - Parameters:
    ///   - source: what mount(8) shows as the device.
    ///   - mountpoint: an absolute path, NUL-terminated.
    ///   - pool: runs fills' answers and what may block.
    /// - Throws: what finding the lower tree's own handle throws.
    package init(
        store: Store, engine: FillEngine, source: BytePath, mountpoint: [CChar], options: Options, pool: BlockingPool,
        log: Logger
    ) throws(Errno) {
        CallerIdentity.prepareProcess()
        self.store = store
        self.engine = engine
        self.source = source
        self.mountpoint = mountpoint
        self.log = log
        fileSystem = try FileSystem(store: store, engine: engine, options: options, pool: pool, log: log)
        session = FuseSession(fileSystem: fileSystem, wantsPassthrough: options.allowsPassthrough, log: log)
        fileSystem.known.invalidation.withLock { [session] in
            $0 = .init { [weak session] in session?.invalidate($0, $1) }
        }
    }

    /// Mounts, and returns when requests are answered; a line that says what was got.
    package func start() throws(Errno) -> String {
        let isRoot = geteuid() == 0
        var options = "fsname=\(Self.escaped("\(source)")),subtype=passhsm,default_permissions"
        // Set-user-ID files and devices act as they do in the lower directory, which the same administrator mounted.
        // Of two that contradict each other the last one counts.
        let own = fileSystem.options.withholdsRights ? ["nosuid", "nodev"] : []
        if isRoot { options += ",allow_other," + (fileSystem.tree.directory.mountOptions + own).joined(separator: ",") }
        try store.startCommitting()
        // Before the mount is there: when the system gives no thread, nothing has to be taken back.
        try fileSystem.locks.start()
        try startThread(name: "tick") { [self] in tick() }
        try startThread(name: "deadlines") { [self] in watchDeadlines() }
        let result = try session.start(mountpoint: mountpoint, options: options)
        passthrough.withLock { $0 = result }
        KernelReadAhead.widen(BytePath(mountpoint.dropLast().map { UInt8(bitPattern: $0) }))
        return result.isOn ? "passthrough: \(result.reason)" : "no passthrough: \(result.reason)"
    }

    /// Commas and backslashes end an option.
    private static func escaped(_ text: String) -> String {
        text.map { $0 == "," || $0 == "\\" ? "\\\($0)" : String($0) }.joined()
    }

    /// Files that nobody uses any more: once a second.
    private func tick() {
        while !isDone.load(ordering: .acquiring) {
            sleep(1)
            fileSystem.sweep()
        }
    }

    /// Deadlines and kills: once a second, on a thread that waits for no file.
    private func watchDeadlines() {
        while !isDone.load(ordering: .acquiring) {
            sleep(1)
            engine.expire()
            fileSystem.cancelDying()
            fileSystem.lookAtRunners()
        }
    }

    /// Returns when the file system is unmounted, by whomever.
    package func waitForUnmount() { session.wait() }

    /// After ``waitForUnmount()``: returns when everything is on disk.
    package func finish() {
        isDone.store(true, ordering: .releasing)
        fileSystem.locks.stop()
        engine.shutDown()
        store.drain()
        store.noteEnd()
        log.info("unmounted")
    }

    /// Fails every request that waits for a fill, now and for five seconds: so that those who wait close their files, and
    /// the mount can be unmounted.
    package func drain() { engine.refuse(for: .seconds(5)) }

    /// Ends the mount: everyone who waits is answered, what users wrote through mappings is written, the mount is
    /// detached, and handles that are still open lose their file system. Returns when ``waitForUnmount()`` can return.
    package func stop() {
        if isStopping.exchange(true, ordering: .acquiringAndReleasing) { return }
        engine.shutDown()
        syncMappings()
        session.detach(mountpoint)
        if session.wait(seconds: Self.patience) { return }
        log.warning("files are still open; their users lose the connection")
        session.abort()
    }

    /// Seconds that users get to close their files.
    private static let patience = 2.0

    /// Writes back what is dirty in mappings of cached handles; not longer than ``patience``.
    private func syncMappings() {
        let finished = Condition()
        let sync: @Sendable () -> Void = { [mountpoint] in
            if let root = try? Descriptor.open(mountpoint, O_RDONLY | O_DIRECTORY) { try? root.syncFileSystem() }
            finished.broadcast()
        }
        do throws(Errno) { try startThread(name: "sync", sync) } catch { fileSystem.pool.run(sync) }
        finished.lock()
        _ = finished.wait(seconds: Self.patience)
        finished.unlock()
    }

    package var status: Status {
        let passthrough = passthrough.withLock { $0 }
        let incomplete = fileSystem.inodes.count { $0.content != nil }
        return Status(
            isPassthrough: passthrough.isOn, passthroughReason: passthrough.reason, requests: session.requests.snapshot,
            knownInodes: fileSystem.inodes.count, openHandles: fileSystem.openHandles.load(ordering: .relaxed),
            backingIDs: fileSystem.known.backing.withLock { $0 }?.count ?? 0, incompleteFiles: incomplete)
    }
}
