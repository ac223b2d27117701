import CLinux
import Glibc
import HSMCore
import HSMFuseDoor
import HSMStore
import HSMSystem
import Logging
import Synchronization

/// A mounted mirror: the FUSE front end over a store and an engine, from the mount to its end.
package final class FuseMount: Sendable {
    /// How long the kernel believes names and attributes.
    package enum Cache: String, Sendable, CaseIterable {
        /// Others change the lower directory too. The mount shows their changes within a second.
        case shared
        /// Only this mount reaches the lower directory.
        case exclusive
        /// The kernel believes nothing.
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

    /// The treatment of a clean incomplete file whose remote copy has changed.
    package enum OnChange: String, Sendable, CaseIterable {
        /// Present bytes stay readable. Reads of absent bytes fail with EIO.
        case error
        /// The file switches to the new version at an open, when no other handle has it open.
        case refetch
    }

    package struct Options: Sendable {
        package var fill = FillPolicy.auto
        package var onChange = OnChange.error
        /// No byte of a remote's content is visible before all of the content was compared with its digest.
        package var isStrict = false
        package var cache = Cache.shared
        package var allowsPassthrough = true
        /// Set-user-ID files and devices have no effect, even where they would have one in the lower directory.
        package var withholdsRights = false
        /// Turns a file's state into the value of the attribute `passhsm.state`.
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
    private let transport: ClassicTransport
    private let connection: Connection
    private let isStopping = Atomic<Bool>(false)
    private let isDone = Atomic<Bool>(false)
    private let source: BytePath
    private let mountpoint: [CChar]

    /// - Parameters:
    ///   - source: the device that mount(8) shows.
    ///   - mountpoint: an absolute path, NUL-terminated.
    ///   - pool: runs the answers to fills, and work that may block.
    /// - Throws: the errors of finding the lower tree's own handle.
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
        transport = ClassicTransport(log: log)
        connection = Connection(transport, fileSystem.wishes, fileSystem)
        fileSystem.known.invalidation.withLock { [connection] in
            $0 = .init { [weak connection] in connection?.invalidate($0, $1) }
        }
    }

    /// Mounts, and returns when requests are answered. Returns a line that says whether passthrough is on, and why.
    package func start() throws(Errno) -> String {
        let isRoot = geteuid() == 0
        var options = "fsname=\(Self.escaped("\(source)")),subtype=passhsm,default_permissions"
        // Set-user-ID files and devices act as they do in the lower directory, which the same administrator mounted.
        // When two options contradict each other the last one counts.
        let own = fileSystem.options.withholdsRights ? ["nosuid", "nodev"] : []
        if isRoot { options += ",allow_other," + (fileSystem.tree.directory.mountOptions + own).joined(separator: ",") }
        try store.startCommitting()
        // The threads start before the mount exists: when the system gives no thread, nothing has to be undone.
        try fileSystem.locks.start()
        try startThread(name: "tick") { [self] in tick() }
        try startThread(name: "deadlines") { [self] in watchDeadlines() }
        try transport.start(connection, mountpoint: mountpoint, options: options)
        guard transport.waitUntilConnected() else { throw Errno(rawValue: EPROTO) }
        let result = fileSystem.passthrough.withLock { $0 }
        KernelReadAhead.widen(BytePath(mountpoint.dropLast().map { UInt8(bitPattern: $0) }))
        return result.isOn ? "passthrough: \(result.reason)" : "no passthrough: \(result.reason)"
    }

    /// Escapes commas and backslashes, which would end an option.
    private static func escaped(_ text: String) -> String {
        text.map { $0 == "," || $0 == "\\" ? "\\\($0)" : String($0) }.joined()
    }

    /// Looks once a second at the watched files (``FileSystem/sweep()``).
    private func tick() {
        while !isDone.load(ordering: .acquiring) {
            sleep(1)
            fileSystem.sweep()
        }
    }

    /// Looks once a second for deadlines and killed threads, on a thread that waits for no file.
    private func watchDeadlines() {
        while !isDone.load(ordering: .acquiring) {
            sleep(1)
            engine.expire()
            fileSystem.cancelDying()
            fileSystem.recheckRunning()
        }
    }

    /// Returns when the file system is unmounted, no matter by which program.
    package func waitForUnmount() { transport.wait() }

    /// To be called after ``waitForUnmount()``. Returns when everything is on disk.
    package func finish() {
        isDone.store(true, ordering: .releasing)
        fileSystem.locks.stop()
        engine.shutDown()
        store.drain()
        store.noteEnd()
        log.info("unmounted")
    }

    /// Fails every request that waits for a fill, now and for five seconds. The waiting programs can then close their
    /// files, and the mount can be unmounted.
    package func drain() { engine.refuse(for: .seconds(5)) }

    /// Ends the mount. Answers every waiting request, writes back the bytes that users wrote through mappings, and
    /// detaches the mount. Handles that are still open lose their file system. Afterwards ``waitForUnmount()`` can
    /// return.
    package func stop() {
        if isStopping.exchange(true, ordering: .acquiringAndReleasing) { return }
        engine.shutDown()
        syncMappings()
        transport.detach(mountpoint)
        if transport.wait(seconds: Self.closeTimeout) { return }
        log.warning("files are still open; their users lose the connection")
        transport.abort()
    }

    /// How many seconds users get to close their files.
    private static let closeTimeout = 2.0

    /// Writes back dirty pages of mappings of cached handles. Takes no longer than ``closeTimeout``.
    private func syncMappings() {
        let finished = Condition()
        let sync: @Sendable () -> Void = { [mountpoint] in
            if let root = try? Descriptor.open(mountpoint, O_RDONLY | O_DIRECTORY) { try? root.syncFileSystem() }
            finished.broadcast()
        }
        do throws(Errno) { try startThread(name: "sync", sync) } catch { fileSystem.pool.run(sync) }
        finished.lock()
        _ = finished.wait(seconds: Self.closeTimeout)
        finished.unlock()
    }

    package var status: Status {
        let passthrough = fileSystem.passthrough.withLock { $0 }
        let incomplete = fileSystem.inodes.count { $0.content != nil }
        return Status(
            isPassthrough: passthrough.isOn, passthroughReason: passthrough.reason,
            requests: connection.counters.snapshot,
            knownInodes: fileSystem.inodes.count, openHandles: fileSystem.openHandles.load(ordering: .relaxed),
            backingIDs: fileSystem.known.backing.withLock { $0 }?.count ?? 0, incompleteFiles: incomplete)
    }
}
