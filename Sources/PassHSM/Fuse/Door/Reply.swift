import CFuse
import Glibc
import HSMSystem

/// The answer to one request, given exactly once: by one of the consuming methods, or with EIO when the reply is
/// dropped. May be moved to another thread.
package struct Reply: ~Copyable, @unchecked Sendable {
    // Sendable: the connection is. The reply owns a reference to it, unmanaged so that the reply can be discarded.
    private let connection: Unmanaged<Connection>
    private let unique: UInt64
    /// Invalid once answered.
    package let caller: Caller
    /// The number by which the kernel knows the request, for the log.
    package var number: UInt64 { unique }

    init(_ connection: Connection, _ unique: UInt64, _ caller: Caller) {
        self.connection = .passRetained(connection)
        self.unique = unique
        self.caller = caller
    }

    deinit {
        _ = connection.takeRetainedValue().send(unique, -EIO, UnsafeRawBufferPointer(start: nil, count: 0))
    }

    /// - Parameter code: an errno; 0 for success without a value.
    package consuming func error(_ code: Int32) {
        _ = finish(code, UnsafeRawBufferPointer(start: nil, count: 0))
    }

    package consuming func error(_ error: Errno) { self.error(error.rawValue) }
    package consuming func done() { error(0) }

    /// Answers an operation that has no value, with success or with its errno.
    package consuming func result(_ body: () throws(Errno) -> Void) {
        do throws(Errno) {
            try body()
            done()
        } catch { self.error(error) }
    }

    package consuming func bytes(_ bytes: UnsafeRawBufferPointer) { _ = finish(0, bytes) }

    package consuming func bytes(_ bytes: [UInt8]) {
        let (connection, unique) = (connection.takeRetainedValue(), unique)
        discard self
        _ = bytes.withUnsafeBytes { connection.send(unique, 0, $0) }
    }

    /// Answers a request that looks up or makes a name. Returns false when the kernel no longer wants the answer. It
    /// then will not FORGET the entry.
    package consuming func entry(_ entry: Entry) -> Bool { finish(value: fuse_entry_out(entry)) }

    /// - Parameter timeout: how many seconds the kernel may believe the attributes.
    package consuming func attributes(_ attributes: stat, timeout: Double) {
        var out = fuse_attr_out()
        (out.attr_valid, out.attr_valid_nsec) = kernelTime(timeout)
        out.attr = fuse_attr(attributes)
        _ = finish(value: out)
    }

    /// Answers STATX.
    ///
    /// - Parameter birth: the time of birth, when the lower file system has it.
    package consuming func attributes(_ attributes: stat, birth: timespec?, timeout: Double) {
        _ = finish(value: passhsm_statx_out(attributes, birth: birth, timeout: timeout))
    }

    /// The output of an ioctl(2) that succeeded.
    package consuming func ioctl(_ output: [UInt8]) {
        let head = fuse_ioctl_out()
        bytes(withUnsafeBytes(of: head) { Array($0) } + output)
    }

    package consuming func written(_ count: Int) { _ = finish(value: fuse_write_out(size: UInt32(count), padding: 0)) }

    package consuming func offset(_ offset: Int) { _ = finish(value: fuse_lseek_out(offset: UInt64(offset))) }

    package consuming func attributeSize(_ size: Int) {
        _ = finish(value: fuse_getxattr_out(size: UInt32(size), padding: 0))
    }

    package consuming func fileSystem(_ statistics: statvfs) {
        _ = finish(value: fuse_statfs_out(st: fuse_kstatfs(statistics)))
    }

    /// Answers OPEN or OPENDIR. Returns false when the kernel no longer wants the answer. It then will not send RELEASE.
    package consuming func open(_ opened: Opened) -> Bool { finish(value: passhsm_open_out(opened)) }

    /// Answers CREATE or TMPFILE. Otherwise as ``open(_:)``.
    package consuming func create(_ entry: Entry, _ opened: Opened) -> Bool {
        finish(value: passhsm_create_out(entry: fuse_entry_out(entry), open: passhsm_open_out(opened)))
    }

    private consuming func finish<Value: BitwiseCopyable>(value: Value) -> Bool {
        let (connection, unique) = (connection.takeRetainedValue(), unique)
        discard self
        return withUnsafeBytes(of: value) { connection.send(unique, 0, $0) }
    }

    private consuming func finish(_ code: Int32, _ payload: UnsafeRawBufferPointer) -> Bool {
        let (connection, unique) = (connection.takeRetainedValue(), unique)
        discard self
        return connection.send(unique, -code, payload)
    }

    // MARK: Waiting

    fileprivate func beginWaiting(_ handler: @escaping @Sendable () -> Void) {
        connection._withUnsafeGuaranteedRef { $0.interrupts.begin(unique, handler) }
    }

    fileprivate func endWaiting() { connection._withUnsafeGuaranteedRef { $0.interrupts.end(unique) } }
    fileprivate var isInterrupted: Bool { connection._withUnsafeGuaranteedRef { $0.interrupts.isInterrupted(unique) } }
}

/// A reply that waits, for a fill or for a lock. A closure or a task can hold it. Answers EIO when it is never taken.
package final class PendingReply: @unchecked Sendable {
    // Sendable: a reply has one holder at a time, who either waits or takes it. A completion is called exactly once.
    private var reply: Reply?
    private var isInterruptible = false
    /// See ``Reply/number``.
    package let number: UInt64

    package init(_ reply: consuming Reply) {
        number = reply.number
        self.reply = consume reply
    }

    package func take() -> Reply? {
        endWaiting()
        return reply.take()
    }

    deinit { endWaiting() }

    /// Nil once the reply was taken.
    package var caller: Caller? {
        switch reply {
        case .some(let reply): reply.caller
        case .none: nil
        }
    }

    /// Calls `handler` when the waiting thread gets a signal, perhaps one that does not end it; at once when it has got
    /// one. Replaces an earlier handler. The handler may run while the reply is taken, and a little later.
    package func onInterrupt(_ handler: @escaping @Sendable () -> Void) {
        isInterruptible = true
        switch reply {
        case .some(let reply): reply.beginWaiting(handler)
        case .none: return
        }
    }

    /// Whether the waiting thread has got a signal.
    package var isInterrupted: Bool {
        switch reply {
        case .some(let reply): reply.isInterrupted
        case .none: false
        }
    }

    private func endWaiting() {
        guard isInterruptible else { return }
        switch reply {
        case .some(let reply): reply.endWaiting()
        case .none: return
        }
    }
}
