import CLinux
import Glibc
import HSMStore
import HSMSystem
import Logging
import Synchronization

/// The parts of a mount that outlive its daemon: the group, the table of waiting events, the mount, and the guardian
/// that holds them.
package final class FanotifySession: Sendable {
    let link: PendingEvent.Link
    var group: EventGroup { link.group }
    /// The session was taken over from another daemon.
    package let isInherited: Bool
    /// The lower directory itself, also where a mount covers it.
    private let lower: Descriptor
    private let guarded: GuardedMount
    /// The mount, until it is attached.
    private let unattached: Mutex<PrivateMount?>
    private let address: GuardianAddress
    private let startGuardian: @Sendable () throws -> Void
    private let log: Logger
    private let guardian: Mutex<GuardianLink?>
    private let isEnding = Atomic<Bool>(false)
    private let inherited: Mutex<[PendingEvent]>

    /// Makes a new session. Its guardian runs when this returns; nothing is mounted yet.
    ///
    /// - Parameter startGuardian: starts a process that runs a ``Guardian`` at `address`.
    package init(
        _ guarded: GuardedMount, at address: GuardianAddress, log: Logger,
        startGuardian: @escaping @Sendable () throws -> Void
    ) throws {
        link = PendingEvent.Link(
            try EventGroup(), try EventTable(count: max(1024, Capabilities.descriptorLimit().now)))
        lower = try guarded.lower.withCString { path throws(Errno) in
            try Descriptor.open(path, O_RDONLY | O_DIRECTORY)
        }
        let mount = try PrivateMount(of: try Store.top(of: lower, shown: "\(guarded.lower)"))
        var guarded = guarded
        guarded.mountID = mount.id
        unattached = Mutex(mount)
        (self.guarded, self.address, self.log) = (guarded, address, log)
        self.startGuardian = startGuardian
        isInherited = false
        guardian = Mutex(nil)
        inherited = Mutex([])
        try guardNow()
        try watch()
    }

    /// Takes over the session of a daemon that died; nil when there is none. To be called before this process has many
    /// descriptors: an event whose number is taken here has to be answered before others are read.
    package init?(
        takingOver address: GuardianAddress, log: Logger, startGuardian: @escaping @Sendable () throws -> Void
    ) throws {
        guard let connection = try? GuardianLink(address), let (mount, descriptors) = try connection.take() else {
            return nil
        }
        let table = try EventTable(descriptors[1])
        link = PendingEvent.Link(EventGroup(descriptors[0]), table)
        lower = descriptors[2]
        (guarded, self.address, self.log) = (mount, address, log)
        unattached = Mutex(nil)
        self.startGuardian = startGuardian
        isInherited = true
        guardian = Mutex(connection)
        var waiting: [PendingEvent] = []
        let placeholder = try Descriptor.open("/dev/null", O_RDONLY)
        for entry in table.entries {
            // A placeholder with the number of a waiting event keeps new events from getting that number.
            var holder: Descriptor?
            if fcntl(entry.number, F_GETFD) < 0, passhsm_dup_to(placeholder.raw, entry.number) == entry.number {
                holder = Descriptor(owning: entry.number)
            }
            waiting.append(
                PendingEvent(
                    number: entry.number, range: entry.range, thread: entry.thread, handle: entry.file,
                    descriptor: holder, link: link))
        }
        inherited = Mutex(waiting)
        // The last daemon may have read events that it had not entered yet: they are denied.
        let limit = max(table.count, Capabilities.descriptorLimit().now)
        let denied = link.group.denyAll(below: limit, except: Set(waiting.map(\.number)))
        link.counters.add(.inherited, waiting.count)
        log.notice("took over \(mount.mountpoint): \(waiting.count) accesses wait, \(denied) were denied")
        try watch()
    }

    package var mount: GuardedMount { guarded }

    /// A path to the lower directory itself, also where a mount covers it.
    package var lowerPath: BytePath { BytePath("/proc/self/fd/\(lower.raw)") }

    /// How far the marks reach, for people.
    package var scope: String {
        guarded.isWholeFileSystem
            ? "the whole file system is marked" : "the mount is marked, and not its copies in other mount namespaces"
    }

    /// To be called before the daemon opens files of the lower directory. `directory` is the daemon's own way to it:
    /// accesses through it raise no events.
    package func prepare(_ directory: LowerDirectory) throws(Errno) {
        if guarded.isWholeFileSystem { try group.ignoreMount(of: directory.place) }
    }

    /// The events that the last daemon left. Later calls return none.
    func takeInherited() -> [PendingEvent] {
        inherited.withLock { events in
            defer { events = [] }
            return events
        }
    }

    /// Makes the mount, once. - Throws: EOPNOTSUPP where the file system has no pre-content events.
    ///
    /// - Parameter withholdsRights: set-user-ID files and devices have no effect.
    func mount(at mountpoint: BytePath, withholdsRights: Bool) throws(Errno) {
        guard let mount = unattached.withLock({ $0.take() }) else { throw Errno(rawValue: EALREADY) }
        try mount.mark(group)
        if guarded.isWholeFileSystem { try group.markFileSystem(of: lower) }
        if withholdsRights { try mount.withholdRights() }
        try mount.attach(at: mountpoint)
    }

    // MARK: The guardian

    /// Starts a guardian and hands it the descriptors that it is to hold.
    private func guardNow() throws {
        try startGuardian()
        let deadline = Deadline(seconds: 10)
        while true {
            do {
                let connection = try GuardianLink(address)
                try connection.keep(guarded, [group.descriptor, link.table.memory, lower])
                return guardian.withLock { $0 = connection }
            } catch {
                if deadline.hasPassed { throw error }
                usleep(20_000)
            }
        }
    }

    /// Starts a thread that replaces the guardian when it ends before the daemon.
    private func watch() throws(Errno) {
        try startThread(name: "guardian") { [weak self] in
            while let self, !self.isEnding.load(ordering: .acquiring) {
                self.guardian.withLock { $0 }?.waitForEnd()
                if self.isEnding.load(ordering: .acquiring) { return }
                self.log.error("the guardian is gone: starting another")
                do { try self.guardNow() } catch {
                    self.log.critical(
                        "no guardian can be started; if the daemon dies now, programs can read holes: \(error)")
                    sleep(1)
                }
            }
        }
    }

    /// Tells the guardian that the daemon ends. The guardian denies the remaining accesses, and ends with the mount.
    func end() {
        isEnding.store(true, ordering: .releasing)
        do throws(Errno) { try guardian.withLock { $0 }?.end() } catch {
            log.error("the guardian does not answer: \(error.text)")
        }
    }
}
