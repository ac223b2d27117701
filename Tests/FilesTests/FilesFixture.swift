import Glibc
import HSMCore
import HSMFiles
import HSMStore
import HSMSystem
import Logging
import Synchronization
import Testing

/// One file in a lower directory with a store, an engine and a remote tier: a front end without a kernel.
final class FilesFixture: Sendable {
    static let granule = 4096
    static let size = 10 * granule
    static let modified = RemoteEntry.Time(seconds: 1_000_000_000, nanoseconds: 123_456_789)
    /// The lower directory.
    let path: String
    let store: Store
    let source = PatternSource()
    let front: FrontEnd
    let files: ManagedFiles<FrontEnd>
    private let pool = BlockingPool(name: "test", limit: 4)

    /// - Parameter state: of the file; a `dual` one has its content.
    init(_ state: Record.State = .offline) throws {
        var name = Array("/var/tmp/passhsm-test.XXXXXX".utf8CString)
        try #require(mkdtemp(&name) != nil)
        path = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        store = try Store.open(name.map { $0 }, create: true, purpose: "testing", log: log)
        try Self.make(state, in: store, "\(path)/.passhsm/tree/file")
        var configuration = FillEngine.Configuration()
        configuration.readAhead = 0
        configuration.retries.firstPause = .milliseconds(1)
        let engine = FillEngine(source: source, configuration: configuration, pool: pool)
        let place = try Descriptor.open("\(path)/.passhsm/tree/file", O_RDONLY)
        front = FrontEnd("\(path)/.passhsm/tree/file", TestFile(try FileHandle(of: place), store.residence(of: place)))
        files = ManagedFiles(store: store, engine: engine, observer: front, isStrict: false, pool: pool, log: log)
    }

    func remove() {
        store.drain()
        system("rm -rf \(path)")
    }

    private static func make(_ state: Record.State, in store: Store, _ path: String) throws {
        let file = try Descriptor.open(path, O_RDWR | O_CREAT, mode: 0o644)
        if state == .dual {
            let bytes = PatternSource.bytes(0..<size, version: 1)
            try file.put(bytes, at: 0)
        } else {
            try file.truncate(to: size)
        }
        let record = Record(
            state: state, object: PatternSource.object(version: 1), modified: modified,
            identity: try FileHandle(of: file),
            granuleSize: granule)
        try store.write(record, to: file)
        try file.setTimes(
            access: FileTime.omit, modification: timespec(tv_sec: modified.seconds, tv_nsec: modified.nanoseconds))
    }

    // MARK: What is done with the file

    var file: TestFile { front.file }

    /// O_PATH on the file would do as well.
    func place() throws -> Descriptor { try front.open(file, O_RDONLY) }

    func record() throws -> Record { try #require(try store.record(of: place())) }

    func lease() throws -> HeldLease<FrontEnd>? {
        guard let lease = try files.lease(file) else { return nil }
        return HeldLease(lease)
    }

    /// Fills granules of the leased file; somebody else may have finished it.
    func fill(_ granules: Range<Int>) throws {
        guard let content = file.content else { return }
        let outcome = Outcome<FillError?>()
        let ticket = files.engine.makeTicket { outcome.finish($0) }
        let bytes = granules.lowerBound * Self.granule..<granules.upperBound * Self.granule
        files.engine.ensureResident(bytes, of: content.fill, ticket: ticket)
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

/// A remote tier with one object, whose content is of its version and without zeros.
final class PatternSource: RemoteStore {
    let location = "pattern:"
    let fetchUnit = 4 * FilesFixture.granule
    let version = Atomic<Int>(1)

    static func object(version: Int) -> RemoteObject {
        RemoteObject(
            key: RemoteKey(Array("file".utf8)), version: RemoteVersion([UInt8(version)]), size: FilesFixture.size)
    }

    static func bytes(_ range: Range<Int>, version: Int) -> [UInt8] {
        range.map { UInt8(truncatingIfNeeded: ($0 &* 7 &+ $0 >> 12 &* 13 &+ version) % 255 + 1) }
    }

    func read(
        _ object: RemoteObject, range: Range<Int>, deliver: (UnsafeRawBufferPointer) throws(FillError) -> Void
    ) async throws(FillError) {
        let version = version.load(ordering: .relaxed)
        if object.version != Self.object(version: version).version {
            throw FillError(.io, .remoteChanged, "another version")
        }
        var refusal: FillError?
        Self.bytes(range, version: version).withUnsafeBytes { bytes in
            do throws(FillError) { try deliver(bytes) } catch { refusal = error }
        }
        if let refusal { throw refusal }
    }

    func current(
        _ key: RemoteKey
    ) async throws(FillError) -> (object: RemoteObject, modified: RemoteEntry.Time) {
        (Self.object(version: version.load(ordering: .relaxed)), FilesFixture.modified)
    }

    func list(_ body: (RemoteEvent) throws -> Void) async throws {}
}

extension Descriptor {
    func put(_ bytes: [UInt8], at offset: Int) throws {
        var failure: Errno?
        bytes.withUnsafeBytes { buffer in
            do throws(Errno) { try write(buffer, at: offset) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    func content() throws -> [UInt8] {
        var result = [UInt8](repeating: 0, count: FilesFixture.size)
        let count = try result.withMutableBytes { buffer throws(Errno) in try read(into: buffer, at: 0) }
        return Array(result.prefix(count))
    }
}

/// Polls until `condition` holds.
func until(_ what: String, _ condition: () throws -> Bool) throws {
    let end = ContinuousClock.now + .seconds(20)
    while try !condition() {
        try #require(ContinuousClock.now < end, "not within twenty seconds: \(what)")
        usleep(1000)
    }
}

final class Counter: Sendable {
    private let count = Atomic<Int>(0)

    func add(_ more: Int = 1) { count.add(more, ordering: .relaxed) }
    var value: Int { count.load(ordering: .relaxed) }
}
