import CFuse
import Glibc
import HSMSystem

/// The answer to one FUSE request, given exactly once: by one of the consuming methods, or with EIO when the reply is
/// dropped.
///
/// May be moved to another thread; libfuse's replies are thread-safe.
struct Reply: ~Copyable, @unchecked Sendable {
    // Sendable: the holder of the reply alone uses the request, and libfuse locks its session.
    private let request: fuse_req_t

    init(_ request: fuse_req_t) { self.request = request }

    deinit { fuse_reply_err(request, EIO) }

    /// The caller, and the user and group for files that the request creates. Invalid once answered. Where the mount
    /// can have mapped owners, requests that create nothing have -1 as user and group.
    var caller: fuse_ctx { fuse_req_ctx(request).pointee }

    /// The credentials of the calling thread, which waits until the answer.
    var credentials: ThreadCredentials { ThreadCredentials(of: caller.pid) }

    /// Whether INTERRUPT has come: the waiting thread got a signal, perhaps one that does not end it.
    var isInterrupted: Bool { fuse_req_interrupted(request) != 0 }

    /// Lets INTERRUPT call `function` with `data`. Calls it at once when INTERRUPT has come already.
    func onInterrupt(_ function: @escaping fuse_interrupt_func_t, _ data: UnsafeMutableRawPointer?) {
        fuse_req_interrupt_func(request, function, data)
    }

    consuming func error(_ code: Int32) {
        fuse_reply_err(request, code)
        discard self
    }

    consuming func error(_ error: Errno) { self.error(error.rawValue) }
    consuming func done() { error(0) }

    /// Answers an operation that has no value, with success or with its errno.
    consuming func result(_ body: () throws(Errno) -> Void) {
        do throws(Errno) {
            try body()
            done()
        } catch { self.error(error) }
    }

    consuming func none() {
        fuse_reply_none(request)
        discard self
    }

    /// Returns false when the kernel no longer wants the answer. It then will not FORGET the entry.
    consuming func entry(_ entry: fuse_entry_param) -> Bool {
        var entry = entry
        let result = fuse_reply_entry(request, &entry)
        discard self
        return result == 0
    }

    consuming func attributes(_ attributes: stat, timeout: Double) {
        var attributes = attributes
        fuse_reply_attr(request, &attributes, timeout)
        discard self
    }

    consuming func bytes(_ bytes: UnsafeRawBufferPointer) {
        fuse_reply_buf(request, bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count)
        discard self
    }

    /// The output of an ioctl(2) that succeeded.
    consuming func ioctl(_ output: UnsafeRawBufferPointer) {
        fuse_reply_ioctl(request, 0, output.baseAddress, output.count)
        discard self
    }

    consuming func link(_ target: UnsafePointer<CChar>) {
        fuse_reply_readlink(request, target)
        discard self
    }

    consuming func written(_ count: Int) {
        fuse_reply_write(request, count)
        discard self
    }

    consuming func offset(_ offset: Int) {
        fuse_reply_lseek(request, offset)
        discard self
    }

    consuming func attributeSize(_ size: Int) {
        fuse_reply_xattr(request, size)
        discard self
    }

    consuming func fileSystem(_ statistics: statvfs) {
        var statistics = statistics
        fuse_reply_statfs(request, &statistics)
        discard self
    }

    /// Answers OPEN or OPENDIR. libfuse 3.14 knows no backing id, so this sends the kernel's own structure.
    ///
    /// Returns false when the kernel no longer wants the answer. It then will not send RELEASE.
    consuming func open(_ answer: passhsm_open_out) -> Bool {
        let result = withUnsafeBytes(of: answer) {
            fuse_reply_buf(request, $0.baseAddress?.assumingMemoryBound(to: CChar.self), $0.count)
        }
        discard self
        return result == 0
    }

    /// Answers CREATE. Otherwise as ``open(_:)``.
    consuming func create(_ answer: passhsm_create_out) -> Bool {
        let result = withUnsafeBytes(of: answer) {
            fuse_reply_buf(request, $0.baseAddress?.assumingMemoryBound(to: CChar.self), $0.count)
        }
        discard self
        return result == 0
    }
}

/// A reply that waits for a fill. A closure can hold it. Answers EIO when it is never taken.
final class PendingReply: @unchecked Sendable {
    // Sendable: the engine calls a completion exactly once, so that there is one taker.
    private var reply: Reply?

    init(_ reply: consuming Reply) { self.reply = consume reply }

    func take() -> Reply? { reply.take() }

    /// The caller, see ``Reply/caller``; nil once the reply was taken.
    var caller: fuse_ctx? {
        switch reply {
        case .some(let reply): reply.caller
        case .none: nil
        }
    }

    func onInterrupt(_ function: @escaping fuse_interrupt_func_t, _ data: UnsafeMutableRawPointer?) {
        switch reply {
        case .some(let reply): reply.onInterrupt(function, data)
        case .none: return
        }
    }
}
