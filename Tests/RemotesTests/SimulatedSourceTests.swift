import Glibc
import HSMCore
import HSMRemotes
import HSMSystem
import Synchronization
import TestSupport
import Testing

/// Delivers zeros at once, and counts the bytes.
private final class FastSource: RemoteStore {
    let location = "fast"
    let fetchUnit = 1 << 20
    let sent = Mutex(0)

    func read(
        _ object: RemoteObject, range: Range<Int>, deliver: (UnsafeRawBufferPointer) throws(FillError) -> Void
    ) async throws(FillError) {
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: range.count, alignment: 8)
        defer { bytes.deallocate() }
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
        sent.withLock { $0 += range.count }
        try deliver(UnsafeRawBufferPointer(bytes))
    }

    func current(
        _ key: RemoteKey
    ) async throws(FillError) -> (object: RemoteObject, modified: RemoteEntry.Time) {
        throw FillError(.io, .remoteGone, "nothing is known of \(key)")
    }

    func list(_ body: (RemoteEvent) throws -> Void) async throws {}
}

@Suite(.serialized) struct SimulatedSourceTests {
    let object = RemoteObject(key: RemoteKey([0x66]), version: RemoteVersion([0x31]), size: 1 << 20)

    func time(_ body: () async throws -> Void) async throws -> Duration {
        let start = ContinuousClock.now
        try await body()
        return ContinuousClock.now - start
    }

    @Test func `the latency is waited for once a read, and reads wait at the same time`() async throws {
        let source = SimulatedSource(FastSource(), try SimulatedBehaviour("latency=1s"))
        let object = object
        // One thread of its own: other tests block the common ones.
        let elapsed = try await withTaskExecutorPreference(BlockingPool(name: "latency", limit: 1)) {
            try await time {
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for _ in 0..<20 { group.addTask { try await source.read(object, range: 0..<1000) { _ in } } }
                    try await group.waitForAll()
                }
            }
        }
        #expect(elapsed >= .seconds(1))
        // One after the other they would take twenty seconds.
        #expect(elapsed < .seconds(15))
    }

    @Test func `the bandwidth is shared by all reads`() async throws {
        let inner = FastSource()
        let source = SimulatedSource(inner, try SimulatedBehaviour("bandwidth=4M"))
        let object = object
        let elapsed = try await time {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<2 { group.addTask { try await source.read(object, range: 0..<1 << 20) { _ in } } }
                try await group.waitForAll()
            }
        }
        #expect(elapsed >= .milliseconds(500))
        #expect(inner.sent.withLock { $0 } == 2 << 20)
    }

    @Test func `bytes of a cancelled read leave the line to the next`() async throws {
        let source = SimulatedSource(FastSource(), try SimulatedBehaviour("bandwidth=64K"))
        let object = object
        let task = Task { try await source.read(object, range: 0..<1 << 20) { _ in } }
        try await Task.sleep(for: .milliseconds(50))
        task.cancel()
        await #expect(throws: FillError.self) { try await task.value }
        let elapsed = try await time { try await source.read(object, range: 0..<6554) { _ in } }
        #expect(elapsed < .seconds(5))
    }

    @Test func `reads wait for as long as the hold exists, and a cancelled one gives up`() async throws {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        tree.shell("touch hold")
        let inner = FastSource()
        let source = SimulatedSource(inner, try SimulatedBehaviour("hold=\(tree.path)/hold"))
        let object = object
        let held = Task { try await source.read(object, range: 0..<1000) { _ in } }
        let cancelled = Task { () -> FillError? in
            do throws(FillError) {
                try await source.read(object, range: 0..<1000) { _ in }
                return nil
            } catch { return error }
        }
        try await Task.sleep(for: .milliseconds(50))
        #expect(inner.sent.withLock { $0 } == 0)
        cancelled.cancel()
        let error = await cancelled.value
        #expect(error?.code == .interrupted)
        #expect(error?.reason == .cancelled)
        #expect(inner.sent.withLock { $0 } == 0)
        tree.shell("rm hold")
        try await held.value
        #expect(inner.sent.withLock { $0 } == 1000)
    }

    @Test func `reads fail for as long as the fail path exists`() async throws {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        tree.shell("touch fail")
        let source = SimulatedSource(FastSource(), try SimulatedBehaviour("fail=\(tree.path)/fail"))
        do throws(FillError) {
            try await source.read(object, range: 0..<1000) { _ in }
            #expect(Bool(false))
        } catch {
            #expect(error.reason == .remoteFailed)
            #expect(error.code == .io)
        }
        tree.shell("rm fail")
        try await source.read(object, range: 0..<1000) { _ in }
    }

    @Test(arguments: ["short", "long", "garbage"]) func `answers are wrong for as long as the path exists`(
        how: String
    ) async throws {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        let source = SimulatedSource(FastSource(), try SimulatedBehaviour("\(how)=\(tree.path)/wrong"))
        func answer() async throws -> [UInt8] {
            var result: [UInt8] = []
            try await source.read(object, range: 0..<1000) { result += Array($0) }
            return result
        }
        let right = [UInt8](repeating: 0, count: 1000)
        #expect(try await answer() == right)
        tree.shell("touch wrong")
        let wrong = try await answer()
        switch how {
        case "short": #expect(wrong == Array(right.prefix(500)))
        case "long": #expect(wrong == right + [0])
        default: #expect(wrong == [UInt8](repeating: 255, count: 1000))
        }
        tree.shell("rm wrong")
        #expect(try await answer() == right)
    }

    @Test func `every part of the text is understood`() throws {
        let behaviour = try SimulatedBehaviour("latency=1.5ms,bandwidth=100M,hold=/tmp/a b,fail=/tmp/x=y")
        #expect(behaviour.latency == .microseconds(1500))
        #expect(behaviour.bandwidth == 100 << 20)
        #expect(behaviour.hold == "/tmp/a b")
        #expect(behaviour.fail == "/tmp/x=y")
        #expect(try SimulatedBehaviour("") == SimulatedBehaviour())
        #expect(try SimulatedBehaviour("latency=2s,bandwidth=512").latency == .seconds(2))
    }

    @Test(arguments: [
        "latency", "latency=", "latency=20", "latency=-1ms", "latency=nans", "bandwidth=0", "bandwidth=M",
        "bandwidth=1e9", "bandwidth=99999999999G", "speed=3", "20ms",
    ])
    func `bad text is refused by name`(_ text: String) {
        let error = #expect(throws: LocationError.self) { _ = try SimulatedBehaviour(text) }
        #expect(error?.description.contains("simulated remote: ") == true)
    }
}
