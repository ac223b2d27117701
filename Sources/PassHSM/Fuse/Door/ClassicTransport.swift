import CFuse
import CLinux
import Glibc
import HSMSystem
import Logging
import Synchronization

/// The transport over /dev/fuse: read(2) brings a request, writev(2) takes its reply. libfuse mounts and unmounts.
///
/// The transport replaces a thread that blocks on the lower file system, so that one thread is always ready for the
/// next request.
package final class ClassicTransport: Transport {
    private let log: Logger
    /// libfuse's session, and its descriptor of /dev/fuse. Set before the first thread starts.
    private nonisolated(unsafe) var session: OpaquePointer?
    private nonisolated(unsafe) var device: Int32 = -1
    private let condition = Condition()
    // Guarded by `condition`'s lock.
    private nonisolated(unsafe) var threads = 0
    private nonisolated(unsafe) var isAborted = false
    private nonisolated(unsafe) var isConnected = false
    /// How many of the spare threads are to serve.
    private nonisolated(unsafe) var sparesWanted = 0
    private let idle = Atomic<Int>(0)
    /// A request and its headers fit.
    private static let bufferSize = Negotiation.maxTransfer + (64 << 10)
    private static let maxThreads = 256
    private static let maxIdle = 16
    /// The number of spare threads: one serves while the others block on the lower file system.
    private static let spares = 2

    package init(log: Logger) { self.log = log }

    // MARK: Starting

    /// Mounts and starts to serve.
    ///
    /// - Parameters:
    ///   - mountpoint: an absolute path, NUL-terminated.
    ///   - options: the mount options, as for mount(8)'s -o.
    package func start(_ connection: Connection, mountpoint: [CChar], options: String) throws(Errno) {
        var none = fuse_lowlevel_ops()
        let made = withArguments(["passhsm", "-o", options]) { passhsm_session_new(&$0, &none, nil) }
        guard let made else { throw Errno(rawValue: EINVAL) }
        do throws(Errno) { try mount(made, mountpoint) } catch {
            fuse_session_destroy(made)
            throw error
        }
        session = made
        do throws(Errno) { try start(connection, device: fuse_session_fd(made)) } catch {
            detach(mountpoint)
            throw error
        }
    }

    /// Starts to serve what `device` brings: the descriptor of /dev/fuse, which the transport does not close.
    func start(_ connection: Connection, device: Int32) throws(Errno) {
        self.device = device
        try startThreads(connection)
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

    // MARK: Serving

    /// Starts the first thread, and the spare threads for when the system gives no more.
    private func startThreads(_ connection: Connection) throws(Errno) {
        condition.lock()
        threads += 1
        condition.unlock()
        do throws(Errno) {
            try startThread(name: "fuse") { [self] in serve(connection, maxIdle: Self.maxIdle) }
        } catch {
            threadEnded()
            throw error
        }
        for _ in 0..<Self.spares {
            try startThread(name: "fuse-spare") { [self] in waitUntilNeeded(connection) }
        }
    }

    /// Provides a thread for the next request: a new one, or a spare one when the system gives no thread.
    private func addThread(_ connection: Connection) {
        condition.lock()
        let isFree = threads < Self.maxThreads
        if isFree { threads += 1 }
        condition.unlock()
        guard isFree else { return }
        do throws(Errno) {
            try startThread(name: "fuse") { [self] in serve(connection, maxIdle: Self.maxIdle) }
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
    private func waitUntilNeeded(_ connection: Connection) {
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
            serve(connection, maxIdle: 1)
        }
    }

    /// - Parameter maxIdle: the thread ends when so many other threads wait for requests.
    private func serve(_ connection: Connection, maxIdle: Int) {
        connection.prepareThread()
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.bufferSize, alignment: 4096)
        defer {
            buffer.deallocate()
            threadEnded()
        }
        while true {
            if idle.wrappingAdd(1, ordering: .relaxed).oldValue >= maxIdle {
                idle.wrappingSubtract(1, ordering: .relaxed)
                return
            }
            let count = read(device, buffer.baseAddress, buffer.count)
            let error = errno
            let isLastIdle = idle.wrappingSubtract(1, ordering: .relaxed).newValue == 0
            // 0 is the end of a connection over a socket; /dev/fuse has ENODEV for it.
            if count == 0 { return }
            if count < 0 {
                // ENOENT: the request was interrupted before it was read.
                if [EINTR, EAGAIN, ENOENT].contains(error) { continue }
                if error != ENODEV { log.error("reading requests failed: \(Errno(rawValue: error).text)") }
                return
            }
            if isLastIdle { addThread(connection) }
            connection.receive(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        }
    }

    package func send(_ unique: UInt64, _ code: Int32, _ payload: UnsafeRawBufferPointer) -> Bool {
        let size = MemoryLayout<fuse_out_header>.size + payload.count
        var header = fuse_out_header(len: UInt32(size), error: code, unique: unique)
        return withUnsafeMutableBytes(of: &header) { header in
            var parts = (
                iovec(iov_base: header.baseAddress, iov_len: header.count),
                iovec(iov_base: UnsafeMutableRawPointer(mutating: payload.baseAddress), iov_len: payload.count)
            )
            return withUnsafeBytes(of: &parts) { parts in
                let first = parts.baseAddress?.assumingMemoryBound(to: iovec.self)
                return writev(device, first, payload.isEmpty ? 1 : 2) == size
            }
        }
    }

    package func openBacking(_ file: Int32) throws(Errno) -> Int32 {
        try check { passhsm_backing_open(device, file) }
    }

    package func closeBacking(_ id: Int32) { _ = passhsm_backing_close(device, UInt32(bitPattern: id)) }

    // MARK: Ending

    /// Takes the mount out of the name space. The mount lives on for as long as files of it are open.
    package func detach(_ mountpoint: [CChar]) {
        if geteuid() == 0 {
            _ = passhsm_umount(mountpoint, PASSHSM_MNT_DETACH)
        } else if let session {
            // This runs fusermount3, which may unmount a mount of the user.
            fuse_session_unmount(session)
        }
    }

    /// Lets ``wait()`` return although files are open. The connection ends with the process.
    package func abort() {
        condition.lock()
        isAborted = true
        condition.unlock()
        condition.broadcast()
    }

    /// Waits until every thread has ended, because the file system was unmounted or the connection aborted.
    package func wait() {
        condition.lock()
        while threads > 0 && !isAborted { condition.wait() }
        condition.unlock()
    }

    /// Waits as ``wait()`` does, but at most `seconds`. Returns false when threads are left.
    package func wait(seconds: Double) -> Bool {
        condition.lock()
        defer { condition.unlock() }
        let end = ContinuousClock.now + .seconds(seconds)
        while threads > 0 && ContinuousClock.now < end { _ = condition.wait(seconds: 0.1) }
        return threads == 0
    }

    package func didConnect() {
        condition.lock()
        isConnected = true
        condition.unlock()
        condition.broadcast()
    }

    /// Waits until ``didConnect()``, or until every thread has ended. Returns whether it is connected.
    package func waitUntilConnected() -> Bool {
        condition.lock()
        defer { condition.unlock() }
        while !isConnected && threads > 0 { condition.wait() }
        return isConnected
    }
}
