import CFuse
import Glibc
import HSMFuseDoor
import HSMSystem
import Synchronization
import TestSupport

/// The kernel's end of a connection: sends the bytes of requests, and keeps the bytes of the replies. No device is
/// there.
final class ScriptedKernel: Transport {
    struct Answer {
        /// 0 or an errno.
        let code: Int32
        let payload: [UInt8]

        /// The payload from `offset` on, as one of the kernel's structures.
        func value<Value: BitwiseCopyable>(_ type: Value.Type, at offset: Int = 0) throws -> Value {
            guard payload.count >= offset + MemoryLayout<Value>.size else { throw Short(count: payload.count) }
            return payload.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: type) }
        }
    }

    struct Short: Error {
        let count: Int
    }

    /// What the kernel was told of an inode: its attributes and these of its pages are to be forgotten.
    struct Invalidation: Equatable {
        let node: UInt64
        let offset: Int64
        let count: Int64
    }

    private struct State {
        var next: UInt64 = 2
        var answers: [UInt64: Answer] = [:]
        var answeredTwice: [UInt64] = []
        var invalidations: [Invalidation] = []
        /// Files that are registered for passthrough.
        var backing: Set<Int32> = []
        var nextBacking: Int32 = 1
        var isConnected = false
        /// Replies to requests whose thread was killed are refused.
        var refusesReplies = false
        /// The errno with which files are not registered.
        var backingError: Int32?
    }

    private let state: Mutex<State>

    /// - Parameter backingError: the errno of every registration for passthrough; nil: they succeed.
    init(backingError: Int32? = nil) { state = Mutex(State(backingError: backingError)) }

    var isConnected: Bool { state.withLock(\.isConnected) }
    var invalidations: [Invalidation] { state.withLock(\.invalidations) }
    var backing: Set<Int32> { state.withLock(\.backing) }
    var answeredTwice: [UInt64] { state.withLock(\.answeredTwice) }

    func refuseReplies(_ refuses: Bool) { state.withLock { $0.refusesReplies = refuses } }
    /// Files are not registered from now on, with this errno; nil: they are again.
    func refuseBacking(_ error: Int32?) { state.withLock { $0.backingError = error } }
    func forgetInvalidations() { state.withLock { $0.invalidations = [] } }

    // MARK: Transport

    func send(_ unique: UInt64, _ code: Int32, _ payload: UnsafeRawBufferPointer) -> Bool {
        state.withLock { state in
            if unique == 0 {
                let out = payload.loadUnaligned(as: fuse_notify_inval_inode_out.self)
                state.invalidations.append(.init(node: out.ino, offset: out.off, count: out.len))
                return true
            }
            if state.answers[unique] != nil { state.answeredTwice.append(unique) }
            state.answers[unique] = Answer(code: -code, payload: Array(payload))
            return !state.refusesReplies
        }
    }

    func openBacking(_ file: Int32) throws(Errno) -> Int32 {
        let result = state.withLock { state -> Result<Int32, Errno> in
            if let error = state.backingError { return .failure(Errno(rawValue: error)) }
            defer { state.nextBacking += 1 }
            state.backing.insert(state.nextBacking)
            return .success(state.nextBacking)
        }
        return try result.get()
    }

    func closeBacking(_ id: Int32) { state.withLock { _ = $0.backing.remove(id) } }

    func didConnect() { state.withLock { $0.isConnected = true } }

    // MARK: Requests

    /// Sends a request and returns its number.
    func send(
        _ opcode: fuse_opcode, _ node: UInt64, _ body: [UInt8], as caller: Caller = .test, to connection: Connection
    ) -> UInt64 {
        let unique = state.withLock { state in
            defer { state.next += 2 }
            return state.next
        }
        var header = fuse_in_header()
        header.len = UInt32(MemoryLayout<fuse_in_header>.size + body.count)
        header.opcode = opcode.rawValue
        header.unique = unique
        header.nodeid = node
        (header.uid, header.gid, header.pid) = (caller.user, caller.group, UInt32(bitPattern: caller.thread))
        let bytes = bytes(of: header) + body
        bytes.withUnsafeBytes { connection.receive($0) }
        return unique
    }

    func answer(to unique: UInt64) -> Answer? { state.withLock { $0.answers[unique] } }

    /// Waits for the reply.
    func wait(for unique: UInt64) throws -> Answer {
        try until("the reply to \(unique)") { answer(to: unique) != nil }
        guard let answer = answer(to: unique) else { throw Short(count: 0) }
        return answer
    }
}

extension Caller {
    /// The thread that runs the test.
    static var test: Caller { Caller(user: geteuid(), group: getegid(), thread: getpid()) }
}

/// The bytes of a structure of the kernel.
func bytes<Value: BitwiseCopyable>(of value: Value) -> [UInt8] { withUnsafeBytes(of: value) { Array($0) } }

/// Names as requests carry them.
func text(_ names: String...) -> [UInt8] { names.flatMap { Array($0.utf8) + [0] } }
