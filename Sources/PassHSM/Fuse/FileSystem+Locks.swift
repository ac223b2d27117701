import CFuse
import CLinux
import Glibc
import HSMSystem
import Synchronization

/// FLOCK: locks of the lower file, so that they hold against those who use the lower directory itself.
///
/// Without GETLK and SETLK the kernel keeps POSIX and OFD locks by itself, among the users of this mount.
extension FileSystem {
    func flock(_ reply: consuming Reply, _ number: UInt64, _ operation: Int32) {
        let handle = OpenFile.of(number)
        do throws(Errno) {
            // As the kernel, which locks per open file: one descriptor a handle.
            let lower = try ownLower(handle)
            do throws(Errno) {
                _ = try check { passhsm_flock(lower.raw, operation | LOCK_NB) }
                reply.done()
            } catch {
                guard error.rawValue == EWOULDBLOCK, operation & LOCK_NB == 0 else { throw error }
                waitForLock(PendingReply(reply), lower, operation)
            }
        } catch { reply.error(error) }
    }

    /// A thread of its own waits, since it may take for ever; INTERRUPT wakes it by a signal.
    private func waitForLock(_ reply: PendingReply, _ lower: Descriptor, _ operation: Int32) {
        let wait = LockWait()
        reply.onInterrupt(
            { _, data in
                guard let data else { return }
                Unmanaged<LockWait>.fromOpaque(data).takeUnretainedValue().interrupt()
            }, Unmanaged.passRetained(wait).toOpaque())
        startThread(name: "flock") {
            wait.begin()
            var failure: Int32 = 0
            while passhsm_flock(lower.raw, operation) != 0 {
                failure = errno
                if failure != EINTR || wait.isInterrupted { break }
                failure = 0
            }
            wait.end()
            // Waits until no interrupt is running any more, so that `wait` can go.
            reply.onInterrupt({ _, _ in }, nil)
            reply.take()?.error(failure)
            Unmanaged.passUnretained(wait).release()
        }
    }
}

/// A thread that waits in flock(2), and can be woken.
private final class LockWait: Sendable {
    private struct State {
        var thread: Int32 = 0
        var isInterrupted = false
        var isDone = false
    }

    private let state = Mutex(State())

    var isInterrupted: Bool { state.withLock(\.isInterrupted) }

    func begin() {
        // Installed without SA_RESTART, so that the signal ends the call.
        var action = sigaction()
        action.__sigaction_handler.sa_handler = { _ in }
        sigaction(SIGUSR1, &action, nil)
        state.withLock { $0.thread = passhsm_gettid() }
    }

    func end() { state.withLock { $0.isDone = true } }

    /// Signals until the thread has noticed: a signal just before the call would be lost.
    func interrupt() {
        let isNew = state.withLock { state in
            defer { state.isInterrupted = true }
            return !state.isInterrupted
        }
        guard isNew else { return }
        startThread(name: "flock-wake") { [self] in
            while true {
                let (thread, isDone) = state.withLock { ($0.thread, $0.isDone) }
                if isDone { return }
                if thread != 0 { _ = passhsm_tgkill(thread, SIGUSR1) }
                usleep(10_000)
            }
        }
    }
}
