import Glibc
import HSMControl
import HSMStore
import HSMSystem
import Logging
import Synchronization

@testable import HSMDaemon

/// A front end without a mount, which notes what it is asked for. Recalls can be held.
final class FakeFrontEnd: FrontEnd {
    /// In the order of their end; a call on a file has its inode's number.
    enum Call: Hashable {
        case start, drain, stop, unmounted, finish
        case released(UInt64), recalled(UInt64), cancelled(UInt64), pinned(UInt64), unpinned(UInt64)
    }

    private struct State {
        var calls: [Call] = []
        var isMounted = false
        var isHeld = false
        /// Recalls that are under way.
        var waiting = 0
    }

    private let parts: FrontEndParts
    private let state = Mutex(State())
    /// Called by ``start()``.
    private let atStart: @Sendable () throws(Errno) -> Void

    init(_ parts: FrontEndParts, atStart: @escaping @Sendable () throws(Errno) -> Void) {
        (self.parts, self.atStart) = (parts, atStart)
    }

    var calls: [Call] { state.withLock { $0.calls } }
    var waiting: Int { state.withLock { $0.waiting } }
    func hold(_ isHeld: Bool) { state.withLock { $0.isHeld = isHeld } }
    private func note(_ call: Call) { state.withLock { $0.calls.append(call) } }

    // MARK: FrontEnd

    var top: Descriptor { parts.store.tree.root }

    func start() throws(Errno) -> String {
        try atStart()
        state.withLock { $0.isMounted = true }
        note(.start)
        return "it pretends"
    }

    func waitForUnmount() {
        while state.withLock(\.isMounted) { usleep(1000) }
        note(.unmounted)
    }

    func finish() { note(.finish) }
    func drain() { note(.drain) }

    func stop() {
        note(.stop)
        unmount()
    }

    /// As umount(8) does it.
    func unmount() { state.withLock { $0.isMounted = false } }

    func state(of file: Descriptor) throws(Errno) -> StoredState { try parts.store.describe(file) }
    func fill(_ report: inout StatusReport) { report.knownInodes = 7 }

    func release(_ file: Descriptor, _ goesOn: () -> Bool) throws(Refusal) -> Int {
        note(.released(try inode(file)))
        return 10
    }

    func recall(_ file: Descriptor, _ progress: (Int) -> Bool) async throws(Refusal) {
        let inode = try inode(file)
        state.withLock { $0.waiting += 1 }
        defer { state.withLock { $0.waiting -= 1 } }
        while state.withLock(\.isHeld) {
            do { try await Task.sleep(for: .milliseconds(1)) } catch {
                note(.cancelled(inode))
                throw Refusal("cancelled")
            }
        }
        _ = progress(100)
        note(.recalled(inode))
    }

    func setPinned(_ isPinned: Bool, _ file: Descriptor) throws(Refusal) {
        let inode = try inode(file)
        note(isPinned ? .pinned(inode) : .unpinned(inode))
    }

    private func inode(_ file: Descriptor) throws(Refusal) -> UInt64 {
        do throws(Errno) { return UInt64(try file.stat().st_ino) } catch { throw Refusal(error.text) }
    }
}

/// Makes one ``FakeFrontEnd``.
final class FakeBuilder: FrontEndBuilder {
    let kind: FrontEndKind
    private let atStart: @Sendable () throws(Errno) -> Void
    private let made = Mutex<FakeFrontEnd?>(nil)

    init(_ kind: FrontEndKind = .fuse, atStart: @escaping @Sendable () throws(Errno) -> Void = {}) {
        (self.kind, self.atStart) = (kind, atStart)
    }

    var frontEnd: FakeFrontEnd? { made.withLock { $0 } }
    var lowerPath: BytePath? { nil }
    func maxWait(log: Logger) -> Duration? { nil }
    func prepare(_ directory: LowerDirectory) throws(Errno) {}
    func remark(with settings: MountSettings) -> String { "; filled at \(settings.fill.text)" }

    func build(_ parts: FrontEndParts) throws(Errno) -> any FrontEnd {
        let frontEnd = FakeFrontEnd(parts, atStart: atStart)
        made.withLock { $0 = frontEnd }
        return frontEnd
    }
}
