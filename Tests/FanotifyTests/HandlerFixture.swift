import CLinux
import Glibc
import HSMCore
import HSMStore
import HSMSystem
import Logging
import StoreTestSupport
import Synchronization
import TestSupport
import Testing

@testable import HSMFanotify

/// The decisions of the front end over a lower directory on disk. No mount raises events: a test makes them, and reads
/// their answers from a socket. The marks are those of a group of the kernel's, which needs CAP_SYS_ADMIN.
final class HandlerFixture {
    typealias Pending = PendingEvent

    static let granule = 4096
    static let size = 10 * granule
    let directory: TemporaryDirectory
    let store: Store
    let remote = FakeRemote(fetchUnit: 4 * HandlerFixture.granule)
    let engine: FillEngine
    let link: Pending.Link
    let handler: EventHandler
    /// The kernel's end of the socket.
    let kernel: Descriptor
    private let pool = BlockingPool(name: "test", limit: 4)
    private var last: Int32 = 500
    private var answers: [Int32: UInt32] = [:]

    init(_ fill: FillPolicy = .auto, isStrict: Bool = false) throws {
        directory = try TemporaryDirectory()
        store = try Store.open(
            directory.path.utf8CString.map { $0 }, create: true, purpose: "testing", log: .silent)
        store.letUsersReachLower()
        engine = FillEngine(source: remote, configuration: .prompt, pool: pool)
        var ends: [Int32] = [0, 0]
        _ = try check { socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0, &ends) }
        kernel = Descriptor(owning: ends[1])
        link = Pending.Link(EventGroup(Descriptor(owning: ends[0])), try EventTable(count: 1000))
        var options = FanotifyMount.Options()
        (options.fill, options.isStrict) = (fill, isStrict)
        handler = EventHandler(
            store: store, engine: engine, group: try EventGroup(), options: options, pool: pool, log: .silent)
    }

    func remove() {
        engine.shutDown()
        store.drain()
        directory.remove()
    }

    // MARK: Files

    func lower(_ name: String = "file") -> String { "\(directory.path)/.passhsm/tree/\(name)" }

    func make(_ state: Record.State, size: Int = HandlerFixture.size) throws {
        let object = RemoteObject(key: RemoteKey(Array("file".utf8)), version: RemoteVersion([0]), size: size)
        try store.makeFile(
            lower(), state, object, granuleSize: Self.granule,
            content: state == .dual ? Pattern.bytes(0..<size) : nil)
    }

    func record() throws -> Record? { try store.record(of: Descriptor.open(lower(), O_RDONLY)) }

    func content() throws -> [UInt8] { try Descriptor.open(lower(), O_RDONLY).bytes(0..<1 << 20) }

    // MARK: Events

    /// What the kernel gets for an event.
    enum Answer: Equatable {
        case allowed
        case denied(Int32)
    }

    /// Raises an event and returns its number.
    ///
    /// - Parameter range: nil for an open.
    func raise(_ range: Range<Int>?, by thread: pid_t, name: String = "file") throws -> Int32 {
        last += 1
        let file = try Descriptor.open(lower(name), O_RDONLY)
        let handle = try FileHandle(of: file)
        link.table.enter(EventTable.Entry(number: last, thread: thread, range: range, file: handle))
        let event = Pending(
            number: last, range: range, thread: thread, handle: handle, descriptor: file, link: link)
        handler.handle(event, file)
        return last
    }

    /// The answer to an event so far.
    func answer(to number: Int32) -> Answer? {
        var response: (number: Int32, answer: UInt32) = (0, 0)
        while recv(kernel.raw, &response, 8, Int32(MSG_DONTWAIT)) == 8 {
            #expect(answers.updateValue(response.answer, forKey: response.number) == nil, "answered twice")
        }
        guard let answer = answers[number] else { return nil }
        return answer == PASSHSM_FAN_ALLOW
            ? .allowed : .denied(Int32(answer >> UInt32(PASSHSM_FAN_ERRNO_SHIFT)))
    }

    /// Waits for the answer and forgets it: the number is free again.
    func wait(for number: Int32) throws -> Answer? {
        defer { answers[number] = nil }
        try until("the answer to \(number)") { answer(to: number) != nil }
        return answer(to: number)
    }

    func outcome(_ range: Range<Int>?, by thread: pid_t) throws -> Answer? { try wait(for: raise(range, by: thread)) }
}

/// Runs `body` with a fixture, and checks at its end that no event is left unanswered.
func withHandler(
    _ fill: FillPolicy = .auto, isStrict: Bool = false, _ body: (HandlerFixture) throws -> Void
) throws {
    let fixture = try HandlerFixture(fill, isStrict: isStrict)
    defer { fixture.remove() }
    try body(fixture)
    try until("the last answer") { fixture.link.table.entries.isEmpty }
}

/// Threads that wait in a system call, as those behind events do.
final class Callers {
    private let directory: TemporaryDirectory
    private let ends = Flag()

    init() throws {
        directory = try TemporaryDirectory()
        directory.shell("mkfifo reading writing")
    }

    deinit {
        // Lets the threads go.
        for name in ["reading", "writing"] { _ = try? Descriptor.open("\(directory.path)/\(name)", O_RDWR) }
        directory.remove()
    }

    /// The number of a thread that is in the call that `body` makes.
    private func thread(_ name: String, _ isThere: (CallerSyscall) -> Bool, _ body: @escaping @Sendable () -> Void)
        throws -> pid_t
    {
        let number = Number()
        try startThread(name: name) {
            number.value.store(passhsm_gettid(), ordering: .releasing)
            body()
        }
        try until("the thread") {
            CallerSyscall(number.value.load(ordering: .acquiring), mayBlock: false).map(isThere) ?? false
        }
        return number.value.load(ordering: .acquiring)
    }

    private final class Number: Sendable {
        let value = Atomic<pid_t>(0)
    }

    /// Waits in open(2), for reading.
    func openingForReading() throws -> pid_t {
        let path = "\(directory.path)/reading"
        return try thread("reading", \.opensForReading) { _ = try? Descriptor.open(path, O_RDONLY) }
    }

    /// Waits in open(2), for writing.
    func openingForWriting() throws -> pid_t {
        let path = "\(directory.path)/writing"
        return try thread("writing", { !$0.opensForReading && !$0.waitsForOther && !$0.readsRange }) {
            _ = try? Descriptor.open(path, O_WRONLY)
        }
    }

    /// Waits in read(2) of a pipe.
    func reading() throws -> pid_t {
        var ends: [Int32] = [0, 0]
        _ = try check { pipe(&ends) }
        let (input, output) = (Descriptor(owning: ends[0]), Descriptor(owning: ends[1]))
        pipes.append(output)
        return try thread("read", \.readsRange) {
            var byte: UInt8 = 0
            _ = read(input.raw, &byte, 1)
        }
    }

    private var pipes: [Descriptor] = []
}
