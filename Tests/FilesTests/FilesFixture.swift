import Glibc
import HSMCore
import HSMFiles
import HSMStore
import HSMSystem
import StoreTestSupport
import Synchronization
import TestSupport
import Testing

/// One file in a lower directory with a store, an engine and a remote tier: a front end without a kernel.
final class FilesFixture: Sendable {
    static let granule = 4096
    static let size = 10 * granule
    /// The lower directory.
    let path: String
    let store: Store
    /// Has the file's version 1, until it is given another one.
    let source = FakeRemote(fetchUnit: 4 * FilesFixture.granule)
    let front: FrontEnd
    let files: ManagedFiles<FrontEnd>
    private let pool = BlockingPool(name: "test", limit: 4)

    /// - Parameter state: of the file; a `dual` one has its content.
    init(_ state: Record.State = .offline) throws {
        path = try TemporaryDirectory().path
        store = try Store.open(path.utf8CString.map { $0 }, create: true, purpose: "testing", log: .silent)
        source.behaviour.withLock { $0.current = Self.object(version: 1) }
        let tree = "\(path)/.passhsm/tree"
        try store.makeFile(
            "\(tree)/file", state, Self.object(version: 1), granuleSize: Self.granule,
            content: state == .dual ? Self.content(version: 1) : nil)
        let engine = FillEngine(source: source, configuration: .prompt, pool: pool)
        let place = try Descriptor.open("\(tree)/file", O_RDONLY)
        front = FrontEnd("\(tree)/file", TestFile(try FileHandle(of: place), store.residence(of: place)))
        files = ManagedFiles(store: store, engine: engine, observer: front, isStrict: false, pool: pool, log: .silent)
    }

    func remove() {
        store.drain()
        system("rm -rf \(path)")
    }

    static func object(version: UInt8) -> RemoteObject {
        RemoteObject(key: RemoteKey(Array("file".utf8)), version: RemoteVersion([version]), size: size)
    }

    static func content(version: UInt8) -> [UInt8] { Pattern.bytes(0..<size, seed: Int(version)) }

    // MARK: What is done with the file

    var file: TestFile { front.file }

    /// O_PATH on the file would do as well.
    func place() throws -> Descriptor { try front.open(file, O_RDONLY) }

    func content() throws -> [UInt8] { try place().bytes(0..<Self.size) }

    func record() throws -> Record { try #require(try store.record(of: place())) }

    func lease() throws -> HeldLease<FrontEnd>? {
        guard let lease = try files.lease(file) else { return nil }
        return HeldLease(lease)
    }

    /// Fills granules of the leased file; somebody else may have finished it.
    func fill(_ granules: Range<Int>) throws {
        guard let content = file.content else { return }
        let outcome = Outcome<FillError?>()
        let waiter = files.engine.makeWaiter { outcome.finish($0) }
        let bytes = granules.lowerBound * Self.granule..<granules.upperBound * Self.granule
        files.engine.ensureResident(bytes, of: content.fill, waiter: waiter)
        let error = try #require(outcome.result(seconds: 10), "no answer")
        if let error { throw error }
    }

    func fillWhole() throws {
        guard let lease = try lease() else { return }
        try fill(0..<Self.size / Self.granule)
        lease.end()
    }

    func refusal(_ body: () throws(Refusal) -> Void) -> Refusal? {
        do throws(Refusal) { try body() } catch { return error }
        return nil
    }

    func release() -> Refusal? {
        let place: Descriptor
        do { place = try Descriptor.openPlace(at: store.tree.root, Array("file".utf8)) } catch {
            return Refusal("\(error)")
        }
        return refusal { () throws(Refusal) in _ = try files.release(place, while: { true }) }
    }

    /// Opens the file for writing, as a front end does; nil when it is not complete.
    func openForWriting() throws -> Descriptor? {
        try files.transition(file) { () throws(Errno) in
            guard file.withState({ $0.lifecycle.isComplete }) else { return nil }
            let lower = try front.open(file, O_RDWR)
            if file.withState({ $0.lifecycle.isClean }) { _ = try files.markDirtyLocked(file, lower) }
            file.withState { $0.lifecycle.openHandle(isServed: false, isWritable: true) }
            return lower
        }
    }

    func closeWriter() {
        file.withState { $0.lifecycle.closeHandle(isServed: false, isWritable: true) }
        files.unmark(file)
    }
}

final class TestFile: ManagedFile {
    let handle: FileHandle
    private let state: Mutex<State>

    struct State: ManagedState {
        var lifecycle: FileLifecycle
        /// The daemon is at work.
        var isOwnChange = false

        mutating func beginOwnChange(at lower: timespec) { isOwnChange = true }
        mutating func endOwnChange(at lower: timespec) { isOwnChange = false }
    }

    init(_ handle: FileHandle, _ residence: Residence) {
        self.handle = handle
        state = Mutex(State(lifecycle: FileLifecycle(residence)))
    }

    func withState<Result: ~Copyable, Failure>(
        _ body: (inout State) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try state.withLock { state throws(Failure) in try body(&state) }
    }
}

/// Knows one file, and notes what it is told.
final class FrontEnd: FileObserver {
    let file: TestFile
    private let path: String
    let events = Mutex<[String]>([])
    /// Active ones, of which there may be one.
    let active = Atomic<Int>(0)
    let refusal = Mutex<Errno?>(nil)

    init(_ path: String, _ file: TestFile) { (self.path, self.file) = (path, file) }

    private func note(_ event: String) { events.withLock { $0.append(event) } }

    /// What it was told since the last time.
    func takeEvents() -> [String] {
        events.withLock { events in
            defer { events = [] }
            return events
        }
    }

    func find(_ handle: FileHandle) -> TestFile? { handle == file.handle ? file : nil }
    func hold(_ place: Descriptor) throws(Errno) -> TestFile? {
        try place.stat().st_mode & S_IFMT == S_IFREG ? file : nil
    }
    func drop(_ file: TestFile) {}
    func open(_ file: TestFile, _ flags: Int32) throws(Errno) -> Descriptor { try Descriptor.open(path, flags) }

    func willActivate(_ file: TestFile, _ lower: Descriptor, for user: Int?) throws(Errno) {
        if let refusal = refusal.withLock({ $0 }) { throw refusal }
    }
    func didActivate(_ file: TestFile, _ share: Void) {
        #expect(active.add(1, ordering: .relaxed).newValue == 1, "two objects for one file")
        note("active")
    }
    func didDeactivate(_ file: TestFile, _ content: IncompleteFile, isFinished: Bool) {
        active.add(-1, ordering: .relaxed)
        note(isFinished ? "finished" : "inactive")
    }
    func willRelease(_ file: TestFile, _ lower: Descriptor) { note("releasing") }
    func didRefetch(_ file: TestFile) { note("refetched") }
    func didStayDirty(_ file: TestFile, _ lower: Descriptor) { note("dirty") }
    func forgetPages(of file: TestFile) { note("forget pages") }
    func noLongerUsed(_ file: TestFile) {}
}

final class Counter: Sendable {
    private let count = Atomic<Int>(0)

    func add(_ more: Int = 1) { count.add(more, ordering: .relaxed) }
    var value: Int { count.load(ordering: .relaxed) }
}
