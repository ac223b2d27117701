import CFuse
import CLinux
import Glibc
import HSMSystem
import Logging
import Synchronization

/// The connection to the kernel: the INIT handshake, and the threads that read requests.
///
/// The threads are the session's own, not libfuse's loop. The session replaces a thread that blocks on the lower file
/// system, so that one thread is always ready for the next request.
final class FuseSession: Sendable {
    struct Passthrough: Sendable {
        var isOn: Bool
        var reason: String
    }

    let fileSystem: FileSystem
    private let log: Logger
    private let wantsPassthrough: Bool
    /// libfuse's session. Set before the first thread starts. Its calls are thread-safe.
    private nonisolated(unsafe) var session: OpaquePointer?
    private let condition = Condition()
    // Guarded by `condition`'s lock.
    private nonisolated(unsafe) var passthroughResult: Passthrough?
    private nonisolated(unsafe) var threads = 0
    private nonisolated(unsafe) var isAborted = false
    /// How many of the spare threads are to serve.
    private nonisolated(unsafe) var sparesWanted = 0
    private let idle = Atomic<Int>(0)
    /// INIT was answered.
    private let isAgreed = Atomic<Bool>(false)
    /// Whether SETXATTR has the longer form that the INIT reply agrees to. The kernel has offered it since Linux 5.13.
    private let hasExtendedSetxattr = Atomic<Bool>(false)
    /// Whether the kernel lets the mount be cloned with mapped owners (MOUNT_ATTR_IDMAP). It has done so since Linux
    /// 6.12.
    private let offersMappedOwners = Atomic<Bool>(false)
    /// Counts requests by opcode. The last counter is for unknown opcodes.
    let requests: RequestCounters
    private static let bufferSize = (1 << 20) + (64 << 10)
    private static let mostThreads = 256
    private static let mostIdle = 16
    /// The number of spare threads: one serves while the others block on the lower file system.
    private static let spares = 2

    init(fileSystem: FileSystem, wantsPassthrough: Bool, log: Logger) {
        self.fileSystem = fileSystem
        self.wantsPassthrough = wantsPassthrough
        self.log = log
        requests = RequestCounters()
    }

    // MARK: Starting

    /// Mounts, performs the INIT handshake and starts to serve. Returns when requests are answered.
    ///
    /// - Parameter options: the mount options, as for mount(8)'s -o.
    func start(mountpoint: [CChar], options: String) throws(Errno) -> Passthrough {
        var operations = makeOperations()
        let user = Unmanaged.passUnretained(self).toOpaque()
        let made = withArguments(["passhsm", "-o", options]) { arguments in
            passhsm_session_new(&arguments, &operations, user)
        }
        guard let made else { throw Errno(rawValue: EINVAL) }
        session = made
        do throws(Errno) { try mount(made, mountpoint) } catch {
            fuse_session_destroy(made)
            throw error
        }
        var io = fuse_custom_io()
        io.read = { device, buffer, size, _ in read(device, buffer, size) }
        io.writev = { device, parts, count, user in
            guard let user, let parts else { return -1 }
            return Unmanaged<FuseSession>.fromOpaque(user).takeUnretainedValue().send(device, parts, count)
        }
        guard fuse_session_custom_io(made, &io, device) == 0 else { throw Errno(rawValue: ENOMEM) }
        do throws(Errno) { try startThreads() } catch {
            detach(mountpoint)
            throw error
        }
        condition.lock()
        while passthroughResult == nil && threads > 0 { condition.wait() }
        let result = passthroughResult
        condition.unlock()
        guard let result else { throw Errno(rawValue: EPROTO) }
        return result
    }

    /// Mounts on a descriptor where this process mounts by itself. A user with write access to a directory above the
    /// mount point could otherwise replace the mount point between the check of its path and mount(2).
    private func mount(_ session: OpaquePointer, _ mountpoint: [CChar]) throws(Errno) {
        func mount(_ path: UnsafePointer<CChar>) throws(Errno) {
            guard fuse_session_mount(session, path) == 0 else {
                let error = errno
                throw Errno(rawValue: error == 0 ? EPERM : error)
            }
        }
        // fusermount3 resolves the path by itself.
        guard Capabilities.effective().mayAdministrate else { return try mount(mountpoint) }
        try Descriptor.openExactly(mountpoint).withProcPath(mount)
    }

    private func withArguments<Result>(_ texts: [String], _ body: (inout fuse_args) -> Result) -> Result {
        var arguments = fuse_args()
        for text in texts { fuse_opt_add_arg(&arguments, text) }
        defer { fuse_opt_free_args(&arguments) }
        return body(&arguments)
    }

    var device: Int32 { session.map { fuse_session_fd($0) } ?? -1 }

    /// Called when the INIT request was read. Chooses among the capabilities that the kernel offers.
    func negotiate(_ connection: inout fuse_conn_info) {
        func want(_ capability: Int32, _ on: Bool = true) {
            let bit = UInt32(bitPattern: capability)
            if !on { connection.want &= ~bit } else if connection.capable & bit != 0 { connection.want |= bit }
        }
        // Listings always carry attributes. Programs read a directory to its end before they ask for the first
        // attribute. The kernel's guess (READDIRPLUS_AUTO) therefore comes too late, and each name would cost a LOOKUP.
        want(FUSE_CAP_READDIRPLUS_AUTO, false)
        // See CachedPages.
        want(FUSE_CAP_AUTO_INVAL_DATA, false)
        want(FUSE_CAP_DONT_MASK)
        want(FUSE_CAP_POSIX_ACL)
        want(FUSE_CAP_EXPORT_SUPPORT)
        want(FUSE_CAP_CACHE_SYMLINKS, fileSystem.options.cache == .exclusive)
        // The kernel waits for asynchronous direct I/O by a count of requests, and no signal ends that wait.
        // Synchronous direct I/O answers AIO and io_uring as well: their callers wait, or workers that can be killed.
        want(FUSE_CAP_ASYNC_DIO, false)
        // The session reads requests into memory. The second version of killpriv is agreed by hand.
        want(FUSE_CAP_SPLICE_READ, false)
        want(FUSE_CAP_SPLICE_WRITE, false)
        want(FUSE_CAP_HANDLE_KILLPRIV, false)
        // Reads that wait for the remote count as background requests. They must not use up the places that other
        // requests need.
        connection.max_background = 65535
        connection.congestion_threshold = 65535
        connection.max_readahead = 1 << 20
    }

    /// Sends an answer. The first answer is INIT's, and gets the fields that libfuse 3.14 does not know.
    private func send(_ device: Int32, _ parts: UnsafeMutablePointer<iovec>, _ count: Int32) -> Int {
        // Every answer comes this way, so this takes no lock.
        guard !isAgreed.load(ordering: .relaxed), count == 2, let payload = parts[1].iov_base else {
            return writev(device, parts, count)
        }
        passhsm_init_reply(payload, wantsPassthrough ? stackDepth : 0, mapsOwners ? 1 : 0)
        let result = writev(device, parts, count)
        let passthrough = result < 0 ? nil : tryPassthrough(device)
        if passthrough != nil { isAgreed.store(true, ordering: .relaxed) }
        condition.lock()
        passthroughResult = passthrough
        condition.unlock()
        condition.broadcast()
        return result
    }

    /// Whether the mount allows mapped owners. With them, only the thread's number identifies the caller, except for
    /// requests that create something. Mounts of ordinary users cannot be mapped anyway.
    private var mapsOwners: Bool {
        offersMappedOwners.load(ordering: .relaxed) && geteuid() == 0 && Capabilities.isInFirstUserNamespace
    }

    /// The stacking depth to ask for. A stacked lower file system needs one more level (fs/fuse/backing.c, ELOOP).
    private var stackDepth: UInt32 {
        let overlayMagic: UInt64 = 0x794c_7630  // OVERLAYFS_SUPER_MAGIC
        return passhsm_file_system_type(fileSystem.tree.directory.original.raw) == overlayMagic ? 2 : 1
    }

    /// Registers a file of the lower file system to find out whether the kernel and the lower file system support
    /// passthrough.
    private func tryPassthrough(_ device: Int32) -> Passthrough {
        guard wantsPassthrough else { return Passthrough(isOn: false, reason: "switched off") }
        do throws(Errno) {
            let file = try Descriptor.open(
                at: fileSystem.store.temporary.raw, ".", O_RDWR | PASSHSM_O_TMPFILE, mode: 0o600)
            let id = try check { passhsm_backing_open(device, file.raw) }
            _ = passhsm_backing_close(device, UInt32(id))
        } catch {
            let reason =
                switch error.rawValue {
                case EPERM: "needs CAP_SYS_ADMIN and Linux 6.9"
                case ENOTTY, EINVAL: "the kernel is older than 6.9"
                case ELOOP: "the lower file system is stacked too deep"
                case EOPNOTSUPP: "the lower file system cannot"
                default: error.text
                }
            return Passthrough(isOn: false, reason: reason)
        }
        let ids = BackingIDs(device: device, limit: 4096)
        fileSystem.known.backing.withLock { $0 = ids }
        return Passthrough(isOn: true, reason: "the kernel reads and writes complete files by itself")
    }

    // MARK: Serving

    /// Starts the first thread, and the spare threads for when the system gives no more.
    private func startThreads() throws(Errno) {
        condition.lock()
        threads += 1
        condition.unlock()
        do throws(Errno) {
            try startThread(name: "fuse") { [self] in serve(mostIdle: Self.mostIdle) }
        } catch {
            threadEnded()
            throw error
        }
        for _ in 0..<Self.spares { try startThread(name: "fuse-spare") { [self] in waitUntilNeeded() } }
    }

    /// Provides a thread for the next request: a new one, or a spare one when the system gives no thread.
    private func addThread() {
        condition.lock()
        let isFree = threads < Self.mostThreads
        if isFree { threads += 1 }
        condition.unlock()
        guard isFree else { return }
        do throws(Errno) {
            try startThread(name: "fuse") { [self] in serve(mostIdle: Self.mostIdle) }
        } catch {
            condition.lock()
            sparesWanted = min(sparesWanted + 1, Self.spares)
            condition.unlock()
            threadEnded()
        }
    }

    private func threadEnded() {
        condition.lock()
        threads -= 1
        condition.unlock()
        condition.broadcast()
    }

    /// The life of a spare thread: it serves while it is needed, and then waits again.
    private func waitUntilNeeded() {
        while true {
            condition.lock()
            while sparesWanted == 0 && threads > 0 { condition.wait() }
            let isNeeded = threads > 0
            if isNeeded {
                sparesWanted -= 1
                threads += 1
            }
            condition.unlock()
            guard isNeeded else { return }
            serve(mostIdle: 1)
        }
    }

    /// - Parameter mostIdle: the thread ends when so many other threads wait for requests.
    private func serve(mostIdle: Int) {
        CallerIdentity.prepareThread()
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.bufferSize, alignment: 4096)
        defer {
            buffer.deallocate()
            threadEnded()
        }
        let device = device
        while true {
            if idle.wrappingAdd(1, ordering: .relaxed).oldValue >= mostIdle {
                idle.wrappingSubtract(1, ordering: .relaxed)
                return
            }
            let count = read(device, buffer.baseAddress, buffer.count)
            let error = errno
            let isLastIdle = idle.wrappingSubtract(1, ordering: .relaxed).newValue == 0
            if count < 0 {
                // ENOENT: the request was interrupted before it was read.
                if [EINTR, EAGAIN, ENOENT].contains(error) { continue }
                if error != ENODEV { log.error("reading requests failed: \(Errno(rawValue: error).text)") }
                return
            }
            if isLastIdle { addThread() }
            process(UnsafeMutableRawBufferPointer(rebasing: buffer[..<count]))
        }
    }

    private func process(_ request: UnsafeMutableRawBufferPointer) {
        guard let session, request.count >= MemoryLayout<fuse_in_header>.size else { return }
        let header = request.loadUnaligned(as: fuse_in_header.self)
        requests.count(header.opcode)
        if header.opcode == FUSE_INIT.rawValue {
            let offer = RequestTranslation.offer(request)
            hasExtendedSetxattr.store(offer.low & PASSHSM_FUSE_SETXATTR_EXT != 0, ordering: .relaxed)
            offersMappedOwners.store(offer.high & PASSHSM_FUSE_ALLOW_IDMAP_HIGH != 0, ordering: .relaxed)
        }
        let translated = RequestTranslation.translate(
            request, header, hasExtendedSetxattr: hasExtendedSetxattr.load(ordering: .relaxed))
        passhsm_set_request_flags(translated.flags)
        var buffer = fuse_buf()
        buffer.size = translated.size
        buffer.mem = request.baseAddress
        fuse_session_process_buf(session, &buffer)
    }

    /// The flags that libfuse 3.14 does not hand on of the request that this thread processes; see
    /// ``RequestTranslation``.
    static var requestFlags: UInt32 { passhsm_request_flags() }

    /// Makes the kernel forget an inode's attributes, and `pages` of it.
    ///
    /// Waits for those pages that are being read. A thread that answers requests therefore must not call it, nor a
    /// thread that holds a lock that answering takes. With no pages it does not wait.
    func invalidate(_ node: fuse_ino_t, _ pages: CachedPages.Part) {
        guard let session else { return }
        let (offset, count) =
            switch pages {
            case .none: (-1, 0)
            case .all: (0, 0)
            case .range(let range): (range.lowerBound, range.count)
            }
        // ENOENT: the kernel does not know the inode.
        _ = fuse_lowlevel_notify_inval_inode(session, node, offset, count)
    }

    // MARK: Ending

    /// Takes the mount out of the name space. The mount lives on for as long as files of it are open.
    func detach(_ mountpoint: [CChar]) {
        if geteuid() == 0 {
            _ = passhsm_umount(mountpoint, PASSHSM_MNT_DETACH)
        } else if let session {
            // This runs fusermount3, which may unmount a mount of the user.
            fuse_session_unmount(session)
        }
    }

    /// Lets ``wait()`` return although files are open. The connection ends with the process.
    func abort() {
        condition.lock()
        isAborted = true
        condition.unlock()
        condition.broadcast()
    }

    /// Waits until every thread has ended, because the file system was unmounted or the connection aborted.
    func wait() {
        condition.lock()
        while threads > 0 && !isAborted { condition.wait() }
        condition.unlock()
    }

    /// Waits as ``wait()`` does, but at most `seconds`. Returns false when threads are left.
    func wait(seconds: Double) -> Bool {
        condition.lock()
        defer { condition.unlock() }
        let end = ContinuousClock.now + .seconds(seconds)
        while threads > 0 && ContinuousClock.now < end { _ = condition.wait(seconds: 0.1) }
        return threads == 0
    }
}
